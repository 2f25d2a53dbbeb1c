package podcertificaterequests

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	"github.com/mayfly-csi/mayfly/signer/controller/cluster"
	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
)

// sets are the policies of now.
type sets struct{ atomic.Pointer[policy.Set] }

func (s *sets) Get(context.Context) (policy.Set, error) { return *s.Load(), nil }

// run runs the signer as a manager does, with the source of reviews alone, until the function that it returns is called.
func (d *fixture) run() (stop func()) {
	d.Helper()
	options := cluster.Options(d.nodeOf)
	options.Reconciler, options.SkipNameValidation = d.Signer, new(true)
	c, err := controller.NewUnmanaged(d.Name(), options)
	if err != nil {
		d.Fatal(err)
	}
	if err := c.Watch(reviews().Source(d.api, d.Decider.Changes)); err != nil {
		d.Fatal(err)
	}
	ctx, cancel := context.WithCancel(d.Context())
	ended := make(chan error)
	go func() { ended <- c.Start(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			d.Error(err)
		}
	}
}

// Within five seconds after the change of a policy a request of a node plugin that it had denied is deleted, and one of
// a kubelet, which waits, is signed.
func TestAChangeOfAPolicyEndsABackoff(t *testing.T) {
	const wait = 5 * time.Second
	compiler, err := policy.NewCompiler(policy.Policy{ClusterDomain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	none := v1alpha1.CertificatePolicy{Spec: v1alpha1.Spec{Namespaces: []string{"shop"}, Allow: v1alpha1.Allow{OwnNames: new(false)}}}
	strict, open := compiler.Set([]v1alpha1.CertificatePolicy{none}), compiler.Set(nil)
	synctest.Test(t, func(t *testing.T) {
		pod := web()
		plugins, kubelets := asks(t, pod), kubelet(t, pod)
		plugins.Name = "of-a-plugin"
		d := newFixture(t, interceptor.Funcs{}, pod, plugins, kubelets)
		policies := &sets{}
		policies.Store(&strict)
		d.Decider.Policies, d.Decider.Changes = policies, &cluster.Changes{}
		for _, pcr := range []*certificatesv1.PodCertificateRequest{plugins, kubelets} {
			if _, err := d.answers(pcr); err != nil {
				t.Fatal(err)
			}
		}
		stop := d.run()
		defer stop()
		time.Sleep(wait)
		synctest.Wait()
		denied, _ := d.status(plugins)
		if waits, _ := d.status(kubelets); !strings.HasPrefix(denied, "Denied NotAllowed: ") || waits != "" {
			t.Errorf("before the change: %q and %q", denied, waits)
		}
		policies.Store(&open)
		d.Decider.Changes.Notify()
		time.Sleep(wait)
		synctest.Wait()
		if err := d.api.Get(t.Context(), client.ObjectKeyFromObject(plugins), plugins); !apierrors.IsNotFound(err) {
			t.Errorf("the denied request is there: %v", err)
		}
		if words, status := d.status(kubelets); status.CertificateChain == "" {
			t.Errorf("the request that waits is not signed: %q", words)
		}
	})
}
