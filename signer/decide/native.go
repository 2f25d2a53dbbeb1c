package decide

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// Domain is that of the signers. podCertificate volumes name an issuer after it: issuer.<namespace>.<name> or
// clusterissuer.<name>.
const Domain = "csi.mayfly.dev/"

// Lifetime returns the longest that a maxExpirationSeconds allows.
func Lifetime(seconds *int32) time.Duration {
	const usual = 86400 // What the API server sets for none.
	if seconds == nil {
		return usual * time.Second
	}
	return time.Duration(*seconds) * time.Second
}

// findNative returns the podCertificate volume of the pod that the kubelet asks for. Of several that say the same, but
// for the kind of key, it is the one with the request's; those that say the same of that, too, ask for the same.
func (r Rules) findNative(of Request, pod *corev1.Pod) (found Volume, err error) {
	key := of.key()
	err = fmt.Errorf("pod %s has no podCertificate volume with signer %s that asks for this", pod.Name, of.Native.Signer)
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			p := source.PodCertificate
			if p == nil || !of.Native.of(p) {
				continue
			}
			if is := keyOf(p.KeyType) == key; err != nil || is {
				found, err = Volume{v.Name, ask(pod, spec.Driver, r.attributes(of, pod, p))}, nil
				if is {
					return found, nil
				}
			}
		}
	}
	return found, err
}

// Natives returns the pod's podCertificate volumes with a signer of ours, one for each source.
func (r Rules) Natives(pod *corev1.Pod) (all []Volume) {
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			if p := source.PodCertificate; p != nil && strings.HasPrefix(p.SignerName, Domain) {
				n := Native{p.SignerName, Lifetime(p.MaxExpirationSeconds), p.UserAnnotations}
				all = append(all, Volume{v.Name, ask(pod, spec.Driver, r.attributes(Request{Native: &n}, pod, p))})
			}
		}
	}
	return all
}

// of reports whether the kubelet has copied this from a volume.
func (n Native) of(p *corev1.PodCertificateProjection) bool {
	return p.SignerName == n.Signer && Lifetime(p.MaxExpirationSeconds) == n.Lifetime &&
		maps.Equal(p.UserAnnotations, n.Annotations)
}

// key returns the kind of the request's key; the zero kind if it can't be read.
func (r Request) key() spec.Key {
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil || len(r.CSR) > KeySize {
		return spec.Key{}
	}
	return spec.KindOf(csr.PublicKey)
}

// attributes returns those of an inline volume that asks for what the podCertificate volume does. What the author does
// not say follows from the pod: its SPIFFE ID, and the name that a headless service gives it (kubernetes
// pkg/kubelet/kubelet_pods.go, GeneratePodHostNameAndDomain).
func (r Rules) attributes(of Request, pod *corev1.Pod, p *corev1.PodCertificateProjection) map[string]string {
	all := map[string]string{}
	if r.Defaults.TrustDomain != "" {
		all[spec.Prefix+"spiffe"] = "true"
	}
	if pod.Spec.Subdomain != "" && pod.Spec.HostnameOverride == nil {
		name := strings.Join([]string{hostname(pod), pod.Spec.Subdomain, pod.Namespace, "svc"}, ".")
		all[spec.Prefix+"dns-names"] = name + "," + name + "." + r.ClusterDomain
	}
	maps.Copy(all, p.UserAnnotations)
	maps.Copy(all, fields(*of.Native, p.KeyType))
	return all
}

func hostname(pod *corev1.Pod) string {
	const longest = 63
	if pod.Spec.Hostname != "" {
		return pod.Spec.Hostname
	}
	return strings.TrimRight(pod.Name[:min(len(pod.Name), longest)], "-.")
}

// fields returns the attributes that follow from the volume's own fields.
func fields(n Native, keyType string) map[string]string {
	all := map[string]string{
		spec.Prefix + "issuer-name":  strings.TrimPrefix(n.Signer, Domain),
		spec.Prefix + "issuer-kind":  signer.CAKind,
		spec.Prefix + "issuer-group": signer.CAGroup,
		spec.Prefix + "duration":     n.Lifetime.String(),
	}
	kind := keyOf(keyType)
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

// nativeDifferences returns all in which the request differs from what the kubelet asks for the volume, and what the
// volume asks for in vain.
func (r Request) nativeDifferences(wanted spec.Spec) problem.List {
	if n := len(r.CSR); n > KeySize {
		return problem.List{fmt.Errorf("the signing request has %d bytes: at most %d", n, KeySize)}
	}
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		return problem.List{fmt.Errorf("the signing request is not understood: %w", err)}
	}
	if !whole(csr) {
		return problem.List{errEncoding}
	}
	all := r.account(wanted)
	if len(csr.Subject.Names) > 0 || len(csr.Extensions) > 0 {
		all = append(all, errors.New("the signing request has names, and those of podCertificate volumes come from the "+
			"pod's spec: their userAnnotations can name them"))
	}
	if !wanted.Key.Matches(csr.PublicKey) {
		all = append(all, difference("key", spec.KindOf(csr.PublicKey), wanted.Key))
	}
	fixed := fields(*r.Native, "ECDSAP256")
	for _, key := range slices.Sorted(maps.Keys(r.Native.Annotations)) {
		if _, is := fixed[key]; is || !spec.Mayfly.Knows(key) {
			all = append(all, fmt.Errorf("userAnnotations: %s is not one that podCertificate volumes can have", key))
		}
	}
	if !Serves(wanted.Issuer.Name, wanted.Pod.Namespace) {
		all = append(all, fmt.Errorf("the signer is %s: there are %sissuer.%s.<name>, of the pod's own namespace, and "+
			"%[2]sclusterissuer.<name>", r.Native.Signer, Domain, wanted.Pod.Namespace))
	}
	return all
}

// Serves reports whether a CA that stands for an issuer is for pods of a namespace.
func Serves(name, namespace string) bool {
	if rest, ok := strings.CutPrefix(name, "issuer."); ok {
		of, issuer, _ := strings.Cut(rest, ".")
		return of == namespace && issuer != ""
	}
	return strings.HasPrefix(name, "clusterissuer.")
}
