package cluster

import (
	"errors"
	"fmt"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

// Pods play requests here.
func TestTheDeniedOnesAreListed(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	review := Review{List: &corev1.PodList{}, Is: func(o client.Object) bool { return o.GetLabels()["denied"] != "" }}
	pod := func(name string, labels map[string]string) client.Object {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: labels}}
	}
	api := fake.NewClientBuilder().WithScheme(scheme).
		WithObjects(pod("a", map[string]string{"denied": "1"}), pod("b", nil), pod("c", map[string]string{"denied": "1"})).Build()
	for range 2 {
		all, err := review.All(t.Context(), api)
		if got := fmt.Sprint(all); err != nil || got != "[shop/a shop/c]" {
			t.Errorf("%s (%v)", got, err)
		}
	}
	if _, err := (Review{List: &certificatesv1.ClusterTrustBundleList{}}).All(t.Context(), api); err == nil || errors.Unwrap(err) == nil {
		t.Errorf("a kind that the client does not know: %v", err)
	}
}

// Who listens hears of a change, once for all that came meanwhile; who does not listen holds up nobody.
func TestChanges(t *testing.T) {
	var changes Changes
	changes.Notify()
	first, second := changes.listen(), changes.listen()
	for range 3 {
		changes.Notify()
		changes.Notify()
		<-first
		if len(first) > 0 || len(second) != 1 {
			t.Errorf("%d and %d changes are told", len(first), len(second))
		}
	}
}
