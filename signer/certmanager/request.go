package certmanager

import (
	"encoding/pem"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/object"
)

// version returns the API version of CertificateRequests.
func version() schema.GroupVersion {
	return schema.GroupVersion{Group: "cert-manager.io", Version: "v1"}
}

const resource = "certificaterequests"

// A CertificateRequest is cert-manager's object of that name, as far as it is needed here
// (cert-manager pkg/apis/certmanager/v1/types_certificaterequest.go): its text is that of cert-manager's type.
type CertificateRequest struct {
	metav1.TypeMeta

	object.Meta `json:"metadata"`

	Spec   Spec   `json:"spec"`
	Status Status `json:"status,omitzero"`
}

// A Spec says what is asked for.
type Spec struct {
	Duration  metav1.Duration `json:"duration"`
	IssuerRef IssuerRef       `json:"issuerRef"`
	Request   []byte          `json:"request"` // PKCS#10, PEM.
	IsCA      bool            `json:"isCA,omitempty"`
	Usages    []signer.Usage  `json:"usages,omitempty"`
}

// An IssuerRef names the issuer.
type IssuerRef struct {
	Name  string `json:"name"`
	Kind  string `json:"kind,omitempty"`
	Group string `json:"group,omitempty"`
}

// A Status has what approvers and the issuer say.
type Status struct {
	Conditions  []object.Condition `json:"conditions,omitempty"`
	Certificate []byte             `json:"certificate,omitempty"` // PEM.
	CA          []byte             `json:"ca,omitempty"`          // PEM.
}

// The types of conditions, and the reasons of [ready].
const (
	approved = "Approved"
	denied   = "Denied"
	invalid  = "InvalidRequest"
	ready    = "Ready"

	reasonDenied = "Denied"
	reasonFailed = "Failed"
)

// Object returns the CertificateRequest of an attempt. The pod owns it, so that it is deleted with the pod. An
// annotation names the volume, if the request does: mayfly-controller looks at that one alone.
func Object(req signer.Request) *CertificateRequest {
	pod, annotations := req.Attempt.Pod, req.Annotations
	if req.Volume != "" {
		annotations = maps.Clone(annotations)
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[signer.VolumeAnnotation] = req.Volume
	}
	return &CertificateRequest{
		TypeMeta: metav1.TypeMeta{Kind: "CertificateRequest", APIVersion: version().String()},
		Meta: object.Meta{
			Name:        req.Attempt.ObjectName(),
			Namespace:   pod.Namespace,
			Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: types.UID(pod.UID),
			}},
		},
		Spec: Spec{
			Request:   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: req.CSR}),
			IssuerRef: IssuerRef{Name: req.Issuer.Name, Kind: req.Issuer.Kind, Group: req.Issuer.Group},
			Duration:  metav1.Duration{Duration: req.Duration},
			Usages:    req.Usages,
			IsCA:      req.IsCA,
		},
	}
}
