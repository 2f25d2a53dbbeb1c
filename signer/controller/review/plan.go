package review

import (
	"cmp"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// A Plan is what a volume would get of a pod that is not there yet, or why it would get nothing.
type Plan struct {
	Subject
	Approved    bool         `json:"approved"`
	Message     string       `json:"message,omitempty"`  // What there is against it.
	Policies    []string     `json:"policies,omitempty"` // Those that count for the pod; none: own names alone.
	Assumes     []string     `json:"assumes,omitempty"`  // What is not known before the pod runs.
	Certificate *Certificate `json:"certificate,omitempty"`
}

// A Certificate is what a volume asks for.
type Certificate struct {
	Subject  string         `json:"subject,omitempty"`
	DNSNames []string       `json:"dnsNames,omitempty"`
	IPs      []string       `json:"ips,omitempty"`
	URIs     []string       `json:"uris,omitempty"`
	IsCA     bool           `json:"isCA,omitempty"`
	Usages   []signer.Usage `json:"usages,omitempty"`
	Duration string         `json:"duration"`
	Key      string         `json:"key"`
	Issuer   string         `json:"issuer"`
}

// What stands for what is not known before a pod runs. The IP is for documentation (RFC 5737).
const (
	standInUID  = types.UID("00000000-0000-0000-0000-000000000000")
	standInNode = "some-node"
	standInIP   = "192.0.2.1"
)

// Plan returns what the volumes of a pod would get that is not there yet. A pod without a namespace is of the given
// one.
func (c Change) Plan(pod *corev1.Pod, namespace string) (plans []Plan) {
	pod = pod.DeepCopy()
	pod.Namespace = cmp.Or(pod.Namespace, namespace)
	pod.Spec.ServiceAccountName = cmp.Or(pod.Spec.ServiceAccountName, "default")
	pod.Spec.NodeName = cmp.Or(pod.Spec.NodeName, standInNode)
	pod.UID = cmp.Or(pod.UID, standInUID)
	pod.Status = corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: standInIP}}}
	rules := c.Then
	ip := netip.MustParseAddr(standInIP)
	rules.PodCIDRs = append(slices.Clone(rules.PodCIDRs), netip.PrefixFrom(ip, ip.BitLen()))
	for _, v := range append(rules.Volumes(pod), rules.Natives(pod)...) {
		plans = append(plans, c.plan(rules, v, pod))
	}
	return plans
}

func (c Change) plan(rules decide.Rules, v decide.Volume, pod *corev1.Pod) Plan {
	wanted, err := rules.Allowed(v, pod, nil)
	p := Plan{Subject: subject(pod, v), Approved: err == nil, Policies: c.Policies(v.Asked.Pod())}
	if err != nil {
		p.Message = err.Error()
	}
	if wanted.Issuer.Name == "" { // It is not understood.
		return p
	}
	p.Certificate = certificate(wanted)
	if wanted.NeedsIP {
		p.Assumes = append(p.Assumes,
			standInIP+" stands for the pod's IP, which must lie where those of its node's pods do")
	}
	if pod.Spec.NodeName == standInNode && strings.Contains(fmt.Sprint(v.Asked.Attributes), "NODE_NAME") {
		p.Assumes = append(p.Assumes, standInNode+" stands for the pod's node")
	}
	return p
}

func certificate(v spec.Spec) *Certificate {
	c := &Certificate{
		Subject: subjectOf(v), DNSNames: v.DNSNames, IPs: texts(v.IPs), URIs: texts(v.URIs), IsCA: v.IsCA,
		Usages: v.Usages, Duration: v.Duration.String(), Key: string(v.Key.Algorithm),
		Issuer: fmt.Sprintf("%s %s of %s", v.Issuer.Kind, v.Issuer.Name, v.Issuer.Group),
	}
	if v.Key.Size > 0 {
		c.Key = fmt.Sprintf("%s %d", v.Key.Algorithm, v.Key.Size)
	}
	return c
}

func subjectOf(v spec.Spec) string {
	var raw pkix.RDNSequence
	if _, err := asn1.Unmarshal(v.RawSubject, &raw); err == nil {
		return raw.String()
	}
	return v.Subject.String()
}

func texts[T fmt.Stringer](all []T) (texts []string) {
	for _, one := range all {
		texts = append(texts, one.String())
	}
	return texts
}
