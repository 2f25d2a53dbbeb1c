package podcertificaterequests

import (
	"maps"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/decide"
)

// ours reports whether the request is for a signer of the controller.
func ours(pcr *certificatesv1.PodCertificateRequest) bool {
	return strings.HasPrefix(pcr.Spec.SignerName, decide.Domain)
}

// native reports whether a kubelet asks, for which a denial or a failure is final: it tries no more for the pod
// (kubernetes pkg/kubelet/podcertificate). Mayfly's node plugin tries again.
func native(pcr *certificatesv1.PodCertificateRequest) bool {
	return pcr.Spec.SignerName != signer.PodCertificateSigner
}

// answered reports whether the request has its one answer, which is final.
func answered(pcr *certificatesv1.PodCertificateRequest) bool { return len(pcr.Status.Conditions) > 0 }

// waits reports whether a kubelet's request has no answer yet.
func waits(pcr *certificatesv1.PodCertificateRequest) bool {
	return pcr.DeletionTimestamp == nil && ours(pcr) && native(pcr) && !answered(pcr)
}

// denied reports whether a node plugin's request was denied for what may end. Nobody but the controller answers them.
func denied(pcr *certificatesv1.PodCertificateRequest) bool {
	denial := func(c metav1.Condition) bool {
		return c.Type == certificatesv1.PodCertificateRequestConditionTypeDenied && decide.MayEnd(c.Reason)
	}
	return pcr.DeletionTimestamp == nil && ours(pcr) && !native(pcr) &&
		slices.ContainsFunc(pcr.Status.Conditions, denial)
}

// request returns what a PodCertificateRequest says. That its node asks is the API server's word (kubernetes
// plugin/pkg/admission/noderestriction, admitPodCertificateRequest).
func request(pcr *certificatesv1.PodCertificateRequest) decide.Request {
	lifetime := decide.Lifetime(pcr.Spec.MaxExpirationSeconds)
	r := decide.Request{
		Caller: "the node", Node: string(pcr.Spec.NodeName), Namespace: pcr.Namespace, Pod: pcr.Spec.PodName,
		UID: pcr.Spec.PodUID, Made: pcr.CreationTimestamp.Time, CSR: pcr.Spec.StubPKCS10Request, Duration: lifetime,
		ServiceAccount: pcr.Spec.ServiceAccountName,
	}
	if native(pcr) {
		r.Native = &decide.Native{
			Signer: pcr.Spec.SignerName, Lifetime: lifetime, Annotations: pcr.Spec.UnverifiedUserAnnotations,
		}
		return r
	}
	r.Annotations = maps.Clone(pcr.Spec.UnverifiedUserAnnotations)
	r.Volume = r.Annotations[signer.VolumeAnnotation]
	delete(r.Annotations, signer.VolumeAnnotation)
	return r
}

// pod returns the one of the request, for who refers to it.
func pod(pcr *certificatesv1.PodCertificateRequest) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: pcr.Namespace, Name: pcr.Spec.PodName, UID: pcr.Spec.PodUID,
	}}
}
