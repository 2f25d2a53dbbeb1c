// Package decide says who gets which certificate. [Decide] is the whole decision: a pure function of what is asked for,
// of the pod and its node as the API server has them, and of the operator's rules.
//
// What a node may write proves nothing. A node writes the status and the annotations of its pods; it does not write
// their specs, nor spec.podCIDRs (kubernetes plugin/pkg/admission/noderestriction).
package decide

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Patience is how long a request is young: what it needs may not be visible yet.
const Patience = 15 * time.Second

// Decide decides on a request at the time now. pod is the one that the request names, nil if there is none; node is
// the pod's, nil if there is none. docs/security.md lists the nine checks in this order.
func Decide(r Request, pod *corev1.Pod, node *corev1.Node, rules Rules, now time.Time) Decision {
	young := now.Sub(r.Made) < Patience

	// Check 1, a known caller: the API server says on which node the one who asks runs.
	if r.Node == "" {
		return deny(CallerUnknown, "the request does not say on which node %s runs: its token must be bound to its "+
			"pod (authentication.kubernetes.io/node-name)", r.Caller)
	}
	// Check 2, one pod: the request is for one, which exists.
	if r.Pod == "" || r.UID == "" {
		return deny(NotOfAPod, "the request must be owned by one pod and nothing else")
	}
	if pod == nil {
		return deny(PodNotFound, "there is no pod %s", r.Pod).unless(young)
	}
	// Check 3, its UID: no pod stands for an earlier one of its name.
	if pod.UID != r.UID {
		return deny(PodNotFound, "pod %s is another one now: its UID is %s", r.Pod, pod.UID)
	}
	// Check 4, its node: the one that asks.
	if pod.Spec.NodeName != r.Node {
		return deny(OtherNode, "pod %s runs on node %q, and node %q asks", r.Pod, pod.Spec.NodeName, r.Node)
	}
	// Check 5, live: it runs, or is about to, and the node has not made it up.
	if why := Dead(pod); why != "" {
		return deny(PodNotLive, "%s", why).ofItsOwn()
	}
	// Check 6, a volume of the pod: the one that the request names by its id.
	volume, err := rules.find(r, pod)
	if err != nil {
		return deny(NoVolume, "%w", err).ofItsOwn()
	}
	// Check 7, equal: the request asks for just what the volume asks for.
	wanted, err := rules.derive(volume.Asked)
	switch {
	case err != nil:
		return deny(NotUnderstood, "volume %s of pod %s %w", volume.Name, r.Pod, err).ofItsOwn()
	case wanted.LacksIP && r.Native != nil && !pod.Spec.HostNetwork:
		return deny(IPNotProved, "volume %s of pod %s asks for the pod's IP, which a pod gets after its "+
			"podCertificate volumes: a volume of csi.mayfly.dev with continue-on-not-ready can have it",
			volume.Name, r.Pod).ofItsOwn()
	case wanted.LacksIP:
		return deny(IPNotProved, "volume %s of pod %s: the pod has no IP yet, which its volume asks for",
			volume.Name, r.Pod).ofItsOwn().unless(young)
	}
	if differences := rules.differences(r, wanted); len(differences) > 0 {
		return deny(NotTheVolumes, "the request is not what volume %s of pod %s asks for: %w",
			volume.Name, r.Pod, differences).ofItsOwn()
	}
	// Check 8, proved IPs: the pod's lie where those of its node's pods do.
	ips, err := rules.prove(wanted, pod, node)
	if err != nil {
		return deny(IPNotProved, "%w", err).ofItsOwn().byNode(wanted)
	}
	// Check 9, the policy: the pod may have such a certificate.
	if err := rules.allow(wanted, ips); err != nil {
		return deny(NotAllowed, "%w", err).ofItsOwn().byNode(wanted)
	}
	return approve(wanted, pod)
}
