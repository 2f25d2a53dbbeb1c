// Package policy is which certificates a pod may have: what the CertificatePolicies that select it allow, or else what
// follows from its own identity.
//
// It looks at what a volume asks for, as it was derived from the pod's spec, and never at annotations: a node writes
// those of its pods.
package policy

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// A Policy is what pods may ask for that no CertificatePolicy selects. The zero policy, with a cluster domain, lets a
// pod have what follows from its own identity.
type Policy struct {
	ClusterDomain string // Of the names of services.
}

// Check returns what the policy has against the volume: [problem.List], or nil.
func (p Policy) Check(v spec.Spec, of decide.Identity) error {
	problems := authority(v)
	problems = append(problems, boundsOf(v.Dialect).against(v)...)
	problems = append(problems, annotations(v, nil)...)
	problems = append(problems, p.subject(v)...)
	ownNames := func() string { return p.ownNames(v.Pod) }
	for _, name := range v.DNSNames {
		if !p.own(newDNSName(name), v.Pod) {
			problems = append(problems, refusal{"DNS name %q is not the pod's: it may have %s", name, ownNames})
		}
	}
	for _, ip := range v.IPs {
		if !has(of.IPs, ip) {
			problems = append(problems, fmt.Errorf("IP address %s is not proved to be the pod's", ip))
		}
	}
	for _, uri := range v.URIs {
		if of.SPIFFEID == nil || uri.String() != of.SPIFFEID.String() {
			problems = append(problems, fmt.Errorf("URI %q is not the pod's: %s", uri, ownURI(of)))
		}
	}
	if len(problems) > 0 {
		return fmt.Errorf("%w: a CertificatePolicy can allow more", problems)
	}
	return nil
}

// Ranges returns where a pod's IPs may lie, besides where they are proved to be its own: nowhere.
func (p Policy) Ranges(signer.Pod) []netip.Prefix { return nil }

// authority refuses what makes a pod a CA, or lets it speak for one: its certificates, its revocation lists, its
// answers about revocation (RFC 6960, section 4.2.2.2).
func authority(v spec.Spec) (problems problem.List) {
	if v.IsCA {
		problems = append(problems, fmt.Errorf("a pod may not be a CA"))
	}
	for _, usage := range authoritative() {
		if slices.Contains(v.Usages, usage) {
			problems = append(problems, fmt.Errorf("key usage %q is a CA's", usage))
		}
	}
	return problems
}

// authoritative returns the key usages of a CA.
func authoritative() []signer.Usage { return []signer.Usage{"cert sign", "crl sign", "ocsp signing"} }

// The types of attributes of a subject (RFC 5280, appendix A.1).
var (
	commonName   = asn1.ObjectIdentifier{2, 5, 4, 3}
	organization = asn1.ObjectIdentifier{2, 5, 4, 10}
)

// attributes returns those of a volume's subject.
func attributes(v spec.Spec) (all []pkix.AttributeTypeAndValue, err error) {
	sequence := v.Subject.ToRDNSequence()
	if v.RawSubject != nil {
		sequence = nil
		if rest, err := asn1.Unmarshal(v.RawSubject, &sequence); err != nil || len(rest) > 0 {
			return nil, fmt.Errorf("the subject is not understood")
		}
	}
	for _, set := range sequence {
		all = append(all, set...)
	}
	return all, nil
}

// subject allows common names that the pod may have as DNS names: many a program takes the one for the other. All else
// in a subject is the word of the pod's author, and may be another's: organizations are groups to an API server
// (k8s.io/apiserver pkg/authentication/request/x509).
func (p Policy) subject(v spec.Spec) (problems problem.List) {
	all, err := attributes(v)
	if err != nil {
		return problem.List{err}
	}
	for _, attribute := range all {
		problems = append(problems, p.attribute(attribute, v.Pod)...)
	}
	return problems
}

func (p Policy) attribute(a pkix.AttributeTypeAndValue, pod signer.Pod) problem.List {
	value, ok := a.Value.(string)
	switch {
	case !a.Type.Equal(commonName):
		const format = "subject: %s is not the pod's to say: it may have a common name alone"
		return problem.List{fmt.Errorf(format, pkix.RDNSequence{{a}})}
	case !ok || !p.own(newDNSName(value), pod):
		return problem.List{fmt.Errorf("common name %q is not the pod's: it may have %s", a.Value, p.ownNames(pod))}
	}
	return nil
}

func (p Policy) ownNames(pod signer.Pod) string {
	names := fmt.Sprintf("names under %s.svc.%s and %[1]s.svc", pod.Namespace, p.ClusterDomain)
	if pod.Namespace == metav1.NamespaceDefault {
		names += " but the API server's"
	}
	return names
}

func ownURI(of decide.Identity) string {
	if of.SPIFFEID == nil {
		return "it has none"
	}
	return fmt.Sprintf("it may have %q", of.SPIFFEID)
}

// own reports whether a DNS name is one of the services of the pod's namespace, which no pod of another namespace can
// have. A bare name, and <name>.<namespace>, may mean another host to who reads it.
func (p Policy) own(name dnsName, pod signer.Pod) bool {
	short := strings.TrimSuffix(name.small, "."+p.ClusterDomain)
	return strings.HasSuffix(short, "."+pod.Namespace+".svc") && !slices.Contains(apiServer(), short)
}

// apiServer returns the names of the API server's service, which no pod answers for.
func apiServer() []string { return []string{"kubernetes.default.svc", "*.default.svc"} }

func has(ips []netip.Addr, ip net.IP) bool {
	addr, ok := netip.AddrFromSlice(ip)
	return ok && slices.Contains(ips, addr.Unmap())
}
