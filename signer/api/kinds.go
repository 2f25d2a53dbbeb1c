package api

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A Pod is a pod as far as volumes need it.
type Pod struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Status PodStatus `json:"status"`
}

// PodStatus is the state of a pod.
type PodStatus struct {
	PodIPs     []PodIP        `json:"podIPs"`
	Conditions []PodCondition `json:"conditions"`
}

// PodIP is one of a pod's IPs.
type PodIP struct {
	IP string `json:"ip"`
}

// A PodCondition is a condition of a pod, such as a readiness gate's.
type PodCondition struct {
	Type   string `json:"type"`
	Status string `json:"status"`
}

// A ConfigMap is a ConfigMap.
type ConfigMap struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Data       map[string]string `json:"data"`
	BinaryData map[string][]byte `json:"binaryData"`
}

// A ClusterTrustBundle has CA certificates of the cluster.
type ClusterTrustBundle struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec ClusterTrustBundleSpec `json:"spec"`
}

// ClusterTrustBundleSpec is the content of a ClusterTrustBundle.
type ClusterTrustBundleSpec struct {
	TrustBundle string `json:"trustBundle"` // PEM.
}

// A List is a list of objects of a kind.
type List[T any] struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []T `json:"items"`
}

// DeepCopyObject implements [runtime.Object].
func (p *Pod) DeepCopyObject() runtime.Object { return shallow(p) }

// DeepCopyObject implements [runtime.Object].
func (c *ConfigMap) DeepCopyObject() runtime.Object { return shallow(c) }

// DeepCopyObject implements [runtime.Object].
func (b *ClusterTrustBundle) DeepCopyObject() runtime.Object { return shallow(b) }

// DeepCopyObject implements [runtime.Object].
func (l *List[T]) DeepCopyObject() runtime.Object { return shallow(l) }

func shallow[T any](object *T) *T {
	other := *object
	return &other
}

// core and certificates are the API versions of the kinds.
func core() schema.GroupVersion { return schema.GroupVersion{Version: "v1"} }

func certificates() schema.GroupVersion {
	return schema.GroupVersion{Group: "certificates.k8s.io", Version: "v1"}
}
