package certificaterequests

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/mayfly-csi/mayfly/signer/controller/cluster"
	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
)

// livePolicies are those of an API server of their own, and the requests that they decide on are told of changes.
func (d *fixture) livePolicies(policies ...client.Object) (api client.Client, live *policy.Live) {
	d.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		d.Fatal(err)
	}
	api, changes := fake.NewClientBuilder().WithScheme(scheme).WithObjects(policies...).Build(), &cluster.Changes{}
	live, err := policy.NewLive(policy.Policy{ClusterDomain: "cluster.local"}, api, changes.Notify, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		d.Fatal(err)
	}
	d.Decider.Policies, d.Decider.Changes = live, changes
	return api, live
}

// run runs the controller as a manager does, with the source of reviews alone, until the function that it returns is
// called.
func (d *fixture) run() (stop func()) {
	d.Helper()
	options := cluster.Options(d.nodeOf)
	options.Reconciler, options.SkipNameValidation = d.Controller, new(true)
	c, err := controller.NewUnmanaged(d.Name(), options)
	if err != nil {
		d.Fatal(err)
	}
	if err := c.Watch(d.reviews().Source(d.api, d.Decider.Changes)); err != nil {
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

// A request that a policy has denied says within five seconds after a change that another one like it would be approved,
// which ends the backoff of its volume: not before, and not if the change has nothing to do with it.
func TestAChangeOfAPolicyEndsABackoff(t *testing.T) {
	const wait = 5 * time.Second
	synctest.Test(t, func(t *testing.T) {
		pod := web()
		cr := asked(t, pod)
		d := newFixture(t, interceptor.Funcs{}, pod, cr)
		p := &v1alpha1.CertificatePolicy{ObjectMeta: metav1.ObjectMeta{Name: "shop", UID: "1", Generation: 1}, Spec: v1alpha1.Spec{
			Namespaces: []string{"shop"}, Allow: v1alpha1.Allow{OwnNames: new(false)},
		}}
		policies, live := d.livePolicies(p)
		stop := d.run()
		defer stop()
		if _, err := d.decides(cr); err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			change func(*v1alpha1.Spec)
			want   string
		}{
			{func(*v1alpha1.Spec) {}, "Denied NotAllowed"},
			{func(s *v1alpha1.Spec) { s.Allow.DNSNames = []string{"other.test"} }, "Denied NotAllowed"},
			{func(s *v1alpha1.Spec) { s.Allow.OwnNames = nil }, "Denied NotAllowed, csi.mayfly.dev/Approvable VerifiedByMayfly"},
		} {
			step.change(&p.Spec)
			p.Generation++
			if err := policies.Update(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			if _, err := live.Reconcile(t.Context(), reconcile.Request{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(wait)
			synctest.Wait()
			if got := d.conditions(cr); got != step.want {
				t.Errorf("%v: %s, want %s", p.Spec.Allow, got, step.want)
			}
		}
	})
}
