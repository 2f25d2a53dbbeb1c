package startup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const name = "node-a"

func scheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(s), storagev1.AddToScheme(s)); err != nil {
		t.Fatal(err)
	}
	return s
}

// newRemover has a node of an age with taints, and its CSINode with drivers.
func newRemover(t *testing.T, age time.Duration, taints, drivers string, calls interceptor.Funcs) (*Remover, *bytes.Buffer) {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Now().Add(-age))}}
	for _, key := range strings.Fields(taints) {
		node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule})
	}
	registered := &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, driver := range strings.Fields(drivers) {
		registered.Spec.Drivers = append(registered.Spec.Drivers, storagev1.CSINodeDriver{Name: driver, NodeID: name})
	}
	api := fake.NewClientBuilder().WithScheme(scheme(t)).WithObjects(node, registered).WithInterceptorFuncs(calls).Build()
	log := &bytes.Buffer{}
	return &Remover{[]string{"csi.mayfly.dev", "csi.cert-manager.io"}, api, api, slog.New(slog.NewTextHandler(log, nil))}, log
}

var ofNode = reconcile.Request{NamespacedName: types.NamespacedName{Name: name}}

func (r *Remover) taints(t *testing.T) string {
	t.Helper()
	var node corev1.Node
	if err := r.Live.Get(t.Context(), ofNode.NamespacedName, &node); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, taint := range node.Spec.Taints {
		keys = append(keys, taint.Key)
	}
	return strings.Join(keys, " ")
}

func TestRemove(t *testing.T) {
	const both = "csi.mayfly.dev other.csi.example.org csi.cert-manager.io"
	for row, x := range map[string]struct {
		age             time.Duration
		taints, drivers string
		want            string
		again           time.Duration
		log             int
	}{
		"all are registered":             {time.Hour, "a " + Taint + " b", both, "a b", 0, 1},
		"it is twice there":              {time.Hour, Taint + " " + Taint, both, "", 0, 1},
		"one of two is not":              {time.Hour, Taint, "csi.mayfly.dev", Taint, 0, 0},
		"none is":                        {time.Minute, Taint, "", Taint, 0, 0},
		"a node without it":              {time.Hour, "a", both, "a", 0, 0},
		"a young node":                   {time.Minute, Taint, both, "", again, 1},
		"a young node that has none yet": {time.Minute, "a", both, "a", again, 0},
	} {
		r, log := newRemover(t, x.age, x.taints, x.drivers, interceptor.Funcs{})
		result, err := r.Reconcile(t.Context(), ofNode)
		if err != nil || result.RequeueAfter != x.again {
			t.Errorf("%s: %+v (%v)", row, result, err)
		}
		if got := r.taints(t); got != x.want {
			t.Errorf("%s: %s", row, got)
		}
		if n := strings.Count(log.String(), `msg="a node's start-up taint is removed`); n != x.log || n != strings.Count(log.String(), "\n") {
			t.Errorf("%s: %s", row, log)
		}
	}
}

// Calls that the API server refuses, and objects that go meanwhile.
func TestRefused(t *testing.T) {
	group := corev1.Resource("nodes")
	for want, x := range map[string]struct {
		get, patch error
		again      time.Duration
	}{
		"no node any more": {get: apierrors.NewNotFound(group, name)},
		"gone meanwhile":   {patch: apierrors.NewNotFound(group, name), again: again},
		"changed":          {patch: apierrors.NewConflict(group, name, errors.New("no")), again: behind},
		"take the taint csi.mayfly.dev/not-ready off node node-a: no": {patch: errors.New("no")},
		"away": {get: errors.New("away")},
	} {
		r, log := newRemover(t, time.Minute, Taint, "csi.mayfly.dev csi.cert-manager.io", interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
				if _, ok := o.(*corev1.Node); ok && x.get != nil {
					return x.get
				}
				return c.Get(ctx, key, o, opts...)
			},
			Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
				if x.patch != nil {
					return x.patch
				}
				return c.Patch(ctx, o, p, opts...)
			},
		})
		result, err := r.Reconcile(t.Context(), ofNode)
		if err != nil && err.Error() != want || fmt.Sprint(err) != want && result.RequeueAfter != x.again || log.Len() > 0 {
			t.Errorf("%s: %+v (%v) %s", want, result, err, log)
		}
	}
	r, _ := newRemover(t, time.Minute, Taint, "", interceptor.Funcs{})
	if result, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: "gone"}}); err != nil || result != (reconcile.Result{}) {
		t.Errorf("%+v (%v)", result, err)
	}
}

// A node that somebody changes between reading and writing keeps the change.
func TestAChangeMeanwhile(t *testing.T) {
	var r *Remover
	changed := false
	r, _ = newRemover(t, time.Hour, Taint, "csi.mayfly.dev csi.cert-manager.io", interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			if !changed {
				changed = true
				var node corev1.Node
				if err := c.Get(ctx, ofNode.NamespacedName, &node); err != nil {
					return err
				}
				node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: "new", Effect: corev1.TaintEffectNoExecute})
				if err := c.Update(ctx, &node); err != nil {
					return err
				}
			}
			return c.Patch(ctx, o, p, opts...)
		},
	})
	if result, err := r.Reconcile(t.Context(), ofNode); err != nil || result.RequeueAfter != behind {
		t.Errorf("%+v (%v)", result, err)
	}
	if _, err := r.Reconcile(t.Context(), ofNode); err != nil {
		t.Error(err)
	}
	if got := r.taints(t); got != "new" {
		t.Errorf("the node has %s", got)
	}
}

// A manager takes the remover, once.
func TestAdd(t *testing.T) {
	m, err := manager.New(&rest.Config{Host: "http://127.0.0.1:1"}, manager.Options{Scheme: scheme(t), Metrics: server.Options{BindAddress: "0"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := new(Remover).Add(m); err != nil {
		t.Error(err)
	}
	if err := new(Remover).Add(m); err == nil {
		t.Error("a second one of its name is taken")
	}
}
