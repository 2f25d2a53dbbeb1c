package policy

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// listed is a cache with some policies.
type listed struct {
	client.Reader
	items []v1alpha1.CertificatePolicy
	err   error
	never bool // It is not complete.
}

func (l *listed) List(ctx context.Context, list client.ObjectList, _ ...client.ListOption) error {
	if l.never {
		<-ctx.Done()
		return ctx.Err()
	}
	if all, ok := list.(*v1alpha1.CertificatePolicyList); ok {
		all.Items = l.items
	}
	return l.err
}

func (l *listed) set(t *testing.T, uid string, generation int64, spec string) {
	t.Helper()
	p := written(t, "p"+uid, spec)
	p.UID, p.Generation = types.UID(uid), generation
	l.items = append(l.items, p)
}

func newLive(t *testing.T, cache client.Reader) (*Live, *bytes.Buffer) {
	t.Helper()
	log := &bytes.Buffer{}
	l, err := NewLive(Policy{ClusterDomain: "cluster.local"}, cache, func() {}, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return l, log
}

func TestLive(t *testing.T) {
	cache, changes := &listed{}, 0
	l, log := newLive(t, cache)
	l.changed = func() { changes++ }
	v := asks(t, web(), spec.Prefix, "dns-names=web.test")
	says := func(want string, invalid float64) {
		t.Helper()
		if _, err := l.Reconcile(t.Context(), reconcile.Request{}); err != nil {
			t.Fatal(err)
		}
		set, err := l.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := set.Check(v, identity()); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if got := testutil.ToFloat64(l.invalid); got != invalid {
			t.Errorf("%v are invalid, and not %v", got, invalid)
		}
	}
	says("is not the pod's", 0)
	cache.set(t, "1", 1, "namespaces: [shop], allow: {dnsNames: [web.test]}")
	says("", 0)
	cache.items = nil
	cache.set(t, "1", 2, "namespaces: [shop], allow: {dnsNames: [x.test]}")
	says(`DNS name "web.test" is not allowed`, 0)
	cache.items = nil
	cache.set(t, "1", 3, "namespaces: [shop], expressions: [{expression: x}]")
	says("it has a mistake", 1)
	cache.set(t, "2", 1, "namespaces: [shop], allow: {dnsNames: [web.test]}")
	says("", 1)
	cache.items = nil
	cache.set(t, "3", 1, "namespaces: [other]") // Another of another name.
	says("is not the pod's", 0)
	if changes != 5 {
		t.Errorf("%d changes are told", changes)
	}
	if n := strings.Count(log.String(), "\n"); n != 5 || strings.Count(log.String(), "level=ERROR") != 1 {
		t.Errorf("a version is told of once:\n%s", log)
	}
}

func TestPoliciesThatCannotBeRead(t *testing.T) {
	l, _ := newLive(t, &listed{err: errors.New("away")})
	if _, err := l.Get(t.Context()); err == nil || err.Error() != "read the CertificatePolicies: away" {
		t.Error(err)
	}
	if _, err := l.Reconcile(t.Context(), reconcile.Request{}); err == nil {
		t.Error("no error")
	}
}

func TestPoliciesThatAreNotKnownYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := newLive(t, &listed{never: true})
		if _, err := l.Get(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestTheMetricIsOne(t *testing.T) {
	registry := prometheus.NewRegistry()
	for _, want := range []bool{true, false} {
		if _, err := NewLive(Policy{}, &listed{}, func() {}, registry, slog.Default()); (err == nil) != want {
			t.Error(err)
		}
	}
}
