package bridge

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/proof"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// domain is that of the signers. Native volumes name an issuer after it: issuer.<namespace>.<name> or clusterissuer.<name>.
const domain = "csi.mayfly.dev/"

// ours reports whether the request is for a signer of the bridge.
func ours(pcr *certificatesv1.PodCertificateRequest) bool {
	return strings.HasPrefix(pcr.Spec.SignerName, domain)
}

// native reports whether a kubelet asks, for which a denial or a failure is final: it tries no more for the pod (kubernetes pkg/kubelet/podcertificate).
// Mayfly's node plugin tries again.
func native(pcr *certificatesv1.PodCertificateRequest) bool {
	return pcr.Spec.SignerName != signer.PodCertificateSigner
}

// answered reports whether the request has its one answer, which is final.
func answered(pcr *certificatesv1.PodCertificateRequest) bool { return len(pcr.Status.Conditions) > 0 }

// denied reports whether a node plugin's request was denied for what may end. Nobody but the controller answers them.
func denied(pcr *certificatesv1.PodCertificateRequest) bool {
	return pcr.DeletionTimestamp == nil && ours(pcr) && !native(pcr) && slices.ContainsFunc(pcr.Status.Conditions, func(c metav1.Condition) bool {
		return c.Type == certificatesv1.PodCertificateRequestConditionTypeDenied && proof.MayEnd(c.Reason)
	})
}

// claim returns what the request says of a pod.
func (b *Bridge) claim(pcr *certificatesv1.PodCertificateRequest) proof.Claim {
	c := proof.Claim{
		Namespace: pcr.Namespace, Pod: pcr.Spec.PodName, UID: pcr.Spec.PodUID, Node: string(pcr.Spec.NodeName), MadeAt: pcr.CreationTimestamp.Time,
	}
	if !native(pcr) {
		c.VolumeID = pcr.Spec.UnverifiedUserAnnotations[signer.VolumeAnnotation]
		c.Against = func(v spec.Spec) problem.List { return againstVolume(pcr, v) }
		return c
	}
	c.Kind = "podCertificate volume with signer " + pcr.Spec.SignerName + " that asks for this"
	c.Sources = func(pod *corev1.Pod) []proof.Source { return b.sources(pcr, pod) }
	c.Against = func(v spec.Spec) problem.List { return againstNative(pcr, v) }
	return c
}

// againstVolume returns all in which the request differs from what the node plugin asks for the volume.
func againstVolume(pcr *certificatesv1.PodCertificateRequest, v spec.Spec) problem.List {
	problems := proof.CSR(pcr.Spec.StubPKCS10Request, v)
	if _, ok := pcr.Spec.UnverifiedUserAnnotations[signer.VolumeAnnotation]; !ok || len(pcr.Spec.UnverifiedUserAnnotations) > 1 {
		problems = append(problems, fmt.Errorf("unverifiedUserAnnotations: there must be %s and nothing else; podCertificate volumes have the signers %sissuer.<namespace>.<name> and %[2]sclusterissuer.<name>", signer.VolumeAnnotation, domain))
	}
	if asked := lifetime(pcr); asked != v.Duration {
		problems = append(problems, proof.Difference("duration", asked, v.Duration))
	}
	return append(problems, account(pcr, v)...)
}

func account(pcr *certificatesv1.PodCertificateRequest, v spec.Spec) (problems problem.List) {
	if asked := pcr.Spec.ServiceAccountName; asked != v.Pod.ServiceAccount {
		problems = append(problems, proof.Difference("service account", asked, v.Pod.ServiceAccount))
	}
	return problems
}

// lifetime returns the longest that the request allows.
func lifetime(pcr *certificatesv1.PodCertificateRequest) time.Duration {
	const usual = 86400 // What the API server sets for none.
	if pcr.Spec.MaxExpirationSeconds == nil {
		return usual * time.Second
	}
	return time.Duration(*pcr.Spec.MaxExpirationSeconds) * time.Second
}

// sources returns the podCertificate volumes of the pod that the request may be for. Their userAnnotations are attributes.
func (b *Bridge) sources(pcr *certificatesv1.PodCertificateRequest, pod *corev1.Pod) (all []proof.Source) {
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			if p := source.PodCertificate; p != nil && meant(pcr, p) {
				all = append(all, proof.Source{Name: v.Name, Asked: proof.AskedBy(pod, spec.Driver, b.attributes(pcr, pod, p))})
			}
		}
	}
	return all
}

// meant reports whether the request is the kubelet's for that volume, which it copies from.
func meant(pcr *certificatesv1.PodCertificateRequest, p *corev1.PodCertificateProjection) bool {
	wanted := &certificatesv1.PodCertificateRequest{}
	wanted.Spec.MaxExpirationSeconds = p.MaxExpirationSeconds
	return p.SignerName == pcr.Spec.SignerName && lifetime(wanted) == lifetime(pcr) && maps.Equal(p.UserAnnotations, pcr.Spec.UnverifiedUserAnnotations)
}

// attributes returns those of an inline volume that asks for what the native one does. What the author does not say follows from the pod: its SPIFFE ID, and the
// name that a headless service gives it (kubernetes pkg/kubelet/kubelet_pods.go, GeneratePodHostNameAndDomain).
func (b *Bridge) attributes(pcr *certificatesv1.PodCertificateRequest, pod *corev1.Pod, p *corev1.PodCertificateProjection) map[string]string {
	all := map[string]string{}
	if b.Court.Rules.Defaults.TrustDomain != "" {
		all[spec.Prefix+"spiffe"] = "true"
	}
	if pod.Spec.Subdomain != "" && pod.Spec.HostnameOverride == nil {
		name := strings.Join([]string{hostname(pod), pod.Spec.Subdomain, pod.Namespace, "svc"}, ".")
		all[spec.Prefix+"dns-names"] = name + "," + name + "." + b.ClusterDomain
	}
	maps.Copy(all, p.UserAnnotations)
	maps.Copy(all, said(pcr, p))
	return all
}

func hostname(pod *corev1.Pod) string {
	const longest = 63
	if pod.Spec.Hostname != "" {
		return pod.Spec.Hostname
	}
	return strings.TrimRight(pod.Name[:min(len(pod.Name), longest)], "-.")
}

// said returns the attributes that the volume's own fields give.
func said(pcr *certificatesv1.PodCertificateRequest, p *corev1.PodCertificateProjection) map[string]string {
	all := map[string]string{
		spec.Prefix + "issuer-name":  strings.TrimPrefix(pcr.Spec.SignerName, domain),
		spec.Prefix + "issuer-kind":  signer.CAKind,
		spec.Prefix + "issuer-group": signer.CAGroup,
		spec.Prefix + "duration":     lifetime(pcr).String(),
	}
	kind := keyOf(p.KeyType)
	all[spec.Prefix+"key-algorithm"] = string(kind.Algorithm)
	if kind.Size > 0 {
		all[spec.Prefix+"key-size"] = fmt.Sprint(kind.Size)
	}
	return all
}

// keyOf returns the kind of key of a keyType (k8s.io/api core/v1, PodCertificateProjection).
func keyOf(keyType string) (k spec.Key) {
	for _, a := range []spec.Algorithm{spec.RSA, spec.ECDSA, spec.Ed25519} {
		if rest, ok := strings.CutPrefix(keyType, strings.ToUpper(string(a))); ok {
			k.Algorithm = a
			_, _ = fmt.Sscan(strings.TrimPrefix(rest, "P"), &k.Size) // None is none.
		}
	}
	return k
}

// againstNative returns all in which the request differs from what the kubelet asks for the volume, and what is asked for in vain.
func againstNative(pcr *certificatesv1.PodCertificateRequest, v spec.Spec) problem.List {
	if n := len(pcr.Spec.StubPKCS10Request); n > proof.KeySize {
		return problem.List{fmt.Errorf("the signing request has %d bytes: at most %d", n, proof.KeySize)}
	}
	csr, err := x509.ParseCertificateRequest(pcr.Spec.StubPKCS10Request)
	if err != nil {
		return problem.List{fmt.Errorf("the signing request is not understood: %w", err)}
	}
	problems := account(pcr, v)
	if len(csr.Subject.Names) > 0 || len(csr.Extensions) > 0 {
		problems = append(problems, errors.New("the signing request has names, and those of podCertificate volumes come from the pod's spec: their userAnnotations can name them"))
	}
	if !v.Key.Matches(csr.PublicKey) {
		problems = append(problems, proof.Difference("key", spec.KindOf(csr.PublicKey), v.Key))
	}
	for _, key := range slices.Sorted(maps.Keys(pcr.Spec.UnverifiedUserAnnotations)) {
		if !spec.Mayfly.Knows(key) || slices.Contains(fixed(), key) {
			problems = append(problems, fmt.Errorf("userAnnotations: %s is not one that podCertificate volumes can have", key))
		}
	}
	if v.Issuer.Name == "" || !serves(v.Issuer.Name, v.Pod.Namespace) {
		problems = append(problems, fmt.Errorf("the signer is %s: there are %sissuer.%s.<name>, of the pod's own namespace, and %[2]sclusterissuer.<name>", pcr.Spec.SignerName, domain, v.Pod.Namespace))
	}
	return problems
}

// fixed returns the attributes that follow from the volume's own fields.
func fixed() (keys []string) {
	return slices.Collect(maps.Keys(said(&certificatesv1.PodCertificateRequest{}, &corev1.PodCertificateProjection{KeyType: "ECDSAP256"})))
}

// serves reports whether a CA that stands for an issuer is for pods of a namespace.
func serves(name, namespace string) bool {
	if rest, ok := strings.CutPrefix(name, "issuer."); ok {
		of, issuer, _ := strings.Cut(rest, ".")
		return of == namespace && issuer != ""
	}
	return strings.HasPrefix(name, "clusterissuer.")
}

// pod returns the one of the request, for who refers to it.
func pod(pcr *certificatesv1.PodCertificateRequest) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pcr.Namespace, Name: pcr.Spec.PodName, UID: pcr.Spec.PodUID}}
}
