package decide

import (
	"net/netip"
	"net/url"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// A Request is what a request of either API says: a CertificateRequest, or a PodCertificateRequest.
type Request struct {
	Caller string // The user who asks, for a message.
	Node   string // On which the caller runs, by the API server's word; empty: unknown.

	Namespace, Pod string // Empty: the request is not for one pod.
	UID            types.UID
	Made           time.Time // By the API server's clock.

	Volume string  // The id of an inline volume ([VolumeID]); empty: a node plugin from before 0.1.0 asks for any.
	Native *Native // Of a podCertificate volume; nil: the volume is an inline one.

	CSR            []byte        // PKCS#10: DER, or PEM where there is an Object.
	Duration       time.Duration // 0: the request says none.
	ServiceAccount string        // Empty: the request says none.

	// Annotations are those of the request but the volume's id. A PodCertificateRequest may have none besides it.
	Annotations map[string]string
	Object      *Object // What a CertificateRequest says beside its signing request; nil: it is none.
}

// An Object is what a CertificateRequest says beside its signing request.
type Object struct {
	Issuer     signer.Issuer
	Usages     []signer.Usage
	IsCA       bool
	Labels     map[string]string
	Finalizers []string
}

// A Native is what the kubelet has copied from a podCertificate volume into its request.
type Native struct {
	Signer      string
	Lifetime    time.Duration
	Annotations map[string]string // The volume's userAnnotations.
}

// Rules are what the operator sets.
type Rules struct {
	Drivers       []spec.DriverName // The names of the CSI driver.
	Defaults      spec.Defaults
	ClusterDomain string // Of the names of pods with podCertificate volumes.
	Policy        Policy
	PodCIDRs      []netip.Prefix // Where pods' IPs lie, besides their nodes' own ranges.

	// Ignored are keys of labels and annotations of CertificateRequests that admission webhooks add, and beginnings
	// of such keys that end in *.
	Ignored []string
}

// An Identity is what a pod is, besides its names.
type Identity struct {
	SPIFFEID *url.URL     // nil: it has none.
	IPs      []netip.Addr // Those that were proved to be the pod's.
}

// A Policy says which certificates pods may have.
type Policy interface {
	// Check returns what the policy has against the certificate, in words for the pod's author; nil: nothing.
	Check(wanted spec.Spec, of Identity) error
	// Ranges returns where the pod's IPs may lie, besides where those of its node's pods do.
	Ranges(pod signer.Pod) []netip.Prefix
}
