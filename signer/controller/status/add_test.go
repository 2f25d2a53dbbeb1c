package status

import (
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
)

// A manager takes the writer, once.
func TestAManagerTakesTheWriter(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	m, err := manager.New(&rest.Config{Host: "http://127.0.0.1:1"}, manager.Options{Scheme: scheme, Metrics: server.Options{BindAddress: "0"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := new(Writer).Add(m); err != nil {
		t.Error(err)
	}
	if err := new(Writer).Add(m); err == nil {
		t.Error("a second one of its name is taken")
	}
}
