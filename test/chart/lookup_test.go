package chart

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/fake"
)

// objects are what there is in a cluster. They are not namespaced.
type objects struct{ client dynamic.Interface }

// GetClientFor implements [helm.sh/helm/v4/pkg/engine.ClientProvider].
func (o objects) GetClientFor(_, kind string) (dynamic.NamespaceableResourceInterface, bool, error) {
	of := map[string]schema.GroupVersionResource{
		"CSIDriver": {Group: "storage.k8s.io", Version: "v1", Resource: "csidrivers"},
		"Namespace": {Version: "v1", Resource: "namespaces"},
	}
	return o.client.Resource(of[kind]), false, nil
}

// there is a cluster with an object.
func there(t *testing.T, object Values) objects {
	t.Helper()
	return objects{fake.NewSimpleDynamicClient(runtime.NewScheme(), &unstructured.Unstructured{Object: object})}
}

// restricted is a cluster in whose namespace no pod is privileged.
func restricted(t *testing.T) objects {
	t.Helper()
	return there(t, Values{"apiVersion": "v1", "kind": "Namespace", "metadata": Values{
		"name": "mayfly-system", "labels": Values{"pod-security.kubernetes.io/enforce": "restricted"},
	}})
}

// A CSIDriver object that is there keeps what can't be changed: csi-driver's has attachRequired, and ours has not. It keeps
// its fsGroupPolicy, too: Helm changes no field that kubectl has set.
func TestCSIDriverThatIsThere(t *testing.T) {
	cluster := Cluster{Lookup: there(t, Values{
		"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": Values{"name": "csi.cert-manager.io"},
		"spec": Values{
			"attachRequired": true, "volumeLifecycleModes": []any{"Ephemeral", "Persistent"},
			"fsGroupPolicy": "ReadWriteOnceWithFSType",
		},
	})}
	both := Values{"dropIn": Values{"csiDriver": true, "csiDriverSpiffe": true}}
	text := mustRender(t, both, cluster)["templates/csidrivers-drop-in.yaml"]
	theirs, other, _ := strings.Cut(text, "\n---\n")
	const kept = "helm.sh/resource-policy: keep"
	for _, want := range []string{"attachRequired: true", "- Ephemeral\n    - Persistent\n", "fsGroupPolicy: ReadWriteOnceWithFSType", kept} {
		if !strings.Contains(theirs, want) {
			t.Errorf("no %q in %s", want, theirs)
		}
	}
	for _, want := range []string{"attachRequired: false", "volumeLifecycleModes: [Ephemeral]", "fsGroupPolicy: None", kept} {
		if !strings.Contains(other, want) {
			t.Errorf("no %q in %s", want, other)
		}
	}
	ours := mustRender(t, nil, cluster)["templates/csidriver.yaml"]
	if !strings.Contains(ours, "attachRequired: false") || strings.Contains(ours, kept) {
		t.Error(ours)
	}
}
