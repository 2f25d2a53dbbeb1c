package decide

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/mayfly-csi/mayfly/signer/spec"
)

// prove returns those of a pod's IPs that lie where those of its node's pods do: a node writes the status of its pods.
// Where the certificate has the pod's IP, all must, or lie where the policy says that they may.
func (r Rules) prove(wanted spec.Spec, pod *corev1.Pod, node *corev1.Node) (proved []netip.Addr, err error) {
	if !hasIPs(wanted) {
		return nil, nil
	}
	ranges := append(slices.Clone(r.PodCIDRs), podCIDRs(node)...)
	for _, text := range ips(pod) {
		ip, err := netip.ParseAddr(text)
		switch {
		case err == nil && within(ranges, ip):
			proved = append(proved, ip.Unmap())
		case wanted.NeedsIP && (err != nil || !within(r.Policy.Ranges(wanted.Pod), ip)):
			return nil, fmt.Errorf("the pod's IP %s does not lie in the spec.podCIDRs of node %s, nor in those of the "+
				"controller's --pod-cidr or of a CertificatePolicy", text, pod.Spec.NodeName)
		}
	}
	return proved, nil
}

// hasIPs reports whether a certificate has IPs, which may be the pod's.
func hasIPs(wanted spec.Spec) bool { return wanted.NeedsIP || len(wanted.IPs) > 0 }

// allow asks the policy. proved are those of the pod's IPs that were.
func (r Rules) allow(wanted spec.Spec, proved []netip.Addr) error {
	id, err := r.Defaults.SPIFFEID(wanted.Pod)
	if err != nil {
		id = nil // The pod has none.
	}
	return r.Policy.Check(wanted, Identity{SPIFFEID: id, IPs: proved})
}

// Allowed returns the certificate that a volume asks for, and what checks 8 and 9 would have against it, whoever asks;
// nil: nothing.
func (r Rules) Allowed(v Volume, pod *corev1.Pod, node *corev1.Node) (wanted spec.Spec, err error) {
	wanted, err = r.derive(v.Asked)
	if err != nil {
		return wanted, fmt.Errorf("volume %s %w", v.Name, err)
	}
	proved, err := r.prove(wanted, pod, node)
	if err != nil {
		return wanted, err
	}
	return wanted, r.allow(wanted, proved)
}

func within(ranges []netip.Prefix, ip netip.Addr) bool {
	return slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(ip.Unmap()) })
}

// podCIDRs returns the ranges of the node's pods; none of a node that is gone.
func podCIDRs(node *corev1.Node) (ranges []netip.Prefix) {
	if node == nil {
		return nil
	}
	for _, text := range node.Spec.PodCIDRs {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			ranges = append(ranges, prefix)
		}
	}
	return ranges
}
