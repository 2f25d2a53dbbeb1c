package podcertificate

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/mayfly-csi/mayfly/signer/object"
)

// version returns the API version of PodCertificateRequests.
func version() schema.GroupVersion {
	return schema.GroupVersion{Group: "certificates.k8s.io", Version: "v1"}
}

const resource = "podcertificaterequests"

// A podCertificateRequest is Kubernetes' object of that name, as far as it is needed here (k8s.io/api/certificates/v1).
type podCertificateRequest struct {
	metav1.TypeMeta

	object.Meta `json:"metadata"`

	Spec   spec   `json:"spec"`
	Status status `json:"status,omitzero"`
}

// A spec says what is asked for.
type spec struct {
	SignerName           string `json:"signerName"`
	PodName              string `json:"podName"`
	PodUID               string `json:"podUID"`
	ServiceAccountName   string `json:"serviceAccountName"`
	ServiceAccountUID    string `json:"serviceAccountUID"`
	NodeName             string `json:"nodeName"`
	NodeUID              string `json:"nodeUID"`
	MaxExpirationSeconds int32  `json:"maxExpirationSeconds"`
	StubPKCS10Request    []byte `json:"stubPKCS10Request"`

	UnverifiedUserAnnotations map[string]string `json:"unverifiedUserAnnotations,omitempty"`
}

// A status has what the signer says.
type status struct {
	Conditions       []object.Condition `json:"conditions,omitempty"`
	CertificateChain string             `json:"certificateChain,omitempty"` // PEM.
}

// The types of conditions.
const (
	denied = "Denied"
	failed = "Failed"
	issued = "Issued"
)
