package authority

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// told are the reasons of events.
type told []string

func (e *told) Eventf(_, _ runtime.Object, _, reason, _, _ string, _ ...any) { *e = append(*e, reason) }

// names are those of these tests.
func names() Names {
	return Names{Namespace: "mayfly-system", Own: "mayfly-ca", Domain: "csi.mayfly.dev"}
}

// newKeeper is a Keeper whose API server answers some calls otherwise.
func newKeeper(t *testing.T, calls interceptor.Funcs) (*Keeper, *told) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), certificatesv1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	api, events := fake.NewClientBuilder().WithScheme(scheme).WithInterceptorFuncs(calls).Build(), new(told)
	k, err := New(Config{
		Names: names(), Plan: DefaultPlan(), API: api, Live: api, Events: events, Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return k, events
}

func own() reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "mayfly-system", Name: "mayfly-ca"}}
}

// It sleeps until something is due, for months.
func TestTheKeeperSleeps(t *testing.T) {
	k, events := newKeeper(t, interceptor.Funcs{})
	for i := range 4 {
		result, err := k.Reconcile(t.Context(), own())
		if err != nil || result.RequeueAfter > 365*day || i > 1 && result.RequeueAfter < 272*day {
			t.Errorf("%d: %+v (%v)", i, result, err)
		}
	}
	if got := strings.Join(*events, " "); got != "CAMade" {
		t.Error(got)
	}
	if got := testutil.ToFloat64(k.ends.WithLabelValues("csi.mayfly.dev/volume")); got < 1 {
		t.Errorf("it ends at %v", got)
	}
	if testutil.CollectAndCount(k.failures) != 1 || testutil.ToFloat64(k.failures) != 0 {
		t.Error("there is no count of failures before the first one")
	}
}

// Who is second is no failure; what the API server refuses is one, and is tried again.
func TestTheSecondLooksAgain(t *testing.T) {
	secrets := schema.GroupResource{Resource: "secrets"}
	for _, row := range []struct {
		answer error
		want   string
	}{
		{apierrors.NewAlreadyExists(secrets, "mayfly-ca"), "1s <nil> 0"},
		{apierrors.NewConflict(secrets, "mayfly-ca", errors.New("changed")), "1s <nil> 0"},
		{errors.New("away"), "0s write Secret mayfly-system/mayfly-ca: away 1"},
	} {
		k, events := newKeeper(t, interceptor.Funcs{Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
			return row.answer
		}})
		result, err := k.Reconcile(t.Context(), own())
		if got := fmt.Sprint(result.RequeueAfter, err, testutil.ToFloat64(k.failures.WithLabelValues("csi.mayfly.dev/volume"))); got != row.want || len(*events) > 0 {
			t.Errorf("%v: %s, %v", row.answer, got, *events)
		}
	}
}

// A CA whose root can't be published is not rotated.
func TestNothingIsDoneBeforeItsRootIsPublished(t *testing.T) {
	k, _ := newKeeper(t, interceptor.Funcs{Create: func(ctx context.Context, api client.WithWatch, o client.Object, options ...client.CreateOption) error {
		if _, ok := o.(*certificatesv1.ClusterTrustBundle); ok {
			return errors.New("away")
		}
		return api.Create(ctx, o, options...)
	}})
	secret := &corev1.Secret{Type: corev1.SecretTypeTLS}
	secret.Namespace, secret.Name = "mayfly-system", "mayfly-ca"
	var err error
	if secret.Data, err = take(t, Prepare, take(t, Begin, State{}, start.AddDate(-1, 0, 0)), start.AddDate(-1, 0, 68)).Write(nil); err != nil { // The next one is due, or over.
		t.Fatal(err)
	}
	if err := k.API.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Reconcile(t.Context(), own()); err == nil || err.Error() != "publish ClusterTrustBundle csi.mayfly.dev:volume:ca: away" {
		t.Error(err)
	}
	now := &corev1.Secret{}
	if err := k.Live.Get(t.Context(), own().NamespacedName, now); err != nil || now.ResourceVersion != secret.ResourceVersion {
		t.Errorf("it was written (%v)", err)
	}
}

// Two that lead prepare the next CA at once: the second does not take the first one's away.
func TestAnotherLeaderWasFaster(t *testing.T) {
	begun := take(t, Begin, State{}, start.AddDate(-1, 0, 0))
	secret := &corev1.Secret{Type: corev1.SecretTypeTLS}
	secret.Namespace, secret.Name = "mayfly-system", "mayfly-ca"
	first := true
	k, events := newKeeper(t, interceptor.Funcs{Update: func(ctx context.Context, api client.WithWatch, o client.Object, options ...client.UpdateOption) error {
		if _, ok := o.(*corev1.Secret); ok && first {
			first = false
			others := secret.DeepCopy()
			others.Data["next.crt"] = []byte("the other's")
			if err := api.Update(ctx, others); err != nil {
				t.Error(err)
			}
		}
		return api.Update(ctx, o, options...)
	}})
	var err error
	if secret.Data, err = begun.Write(nil); err != nil {
		t.Fatal(err)
	}
	if err := k.API.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	if result, err := k.Reconcile(t.Context(), own()); err != nil || result.RequeueAfter != again || len(*events) > 0 {
		t.Errorf("%+v (%v), %v", result, err, *events)
	}
	now := &corev1.Secret{}
	if err := k.Live.Get(t.Context(), own().NamespacedName, now); err != nil || string(now.Data["next.crt"]) != "the other's" {
		t.Errorf("%s (%v)", now.Data["next.crt"], err)
	}
}
