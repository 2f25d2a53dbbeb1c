package decide

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// A Verdict is what becomes of a request.
type Verdict int

// The verdicts. The zero one is none.
const (
	_    Verdict = iota
	Wait         // What the request needs may become visible: decide again in a second.
	Approve
	Deny
)

// The reasons, one word each: of an approval or a denial.
const (
	Verified      = "VerifiedByMayfly"
	CallerUnknown = "CallerUnknown" // The request does not say which node asks.
	NotOfAPod     = "NotOfAPod"     // It is not for one pod.
	PodNotFound   = "PodNotFound"   // There is no such pod, or it is another one.
	OtherNode     = "OtherNode"     // The pod runs on another node.
	PodNotLive    = "PodNotLive"    // It is a mirror of a file of the node, is being deleted, or has ended.
	NoVolume      = "NoVolume"      // The pod has no volume of the driver, or not the one that is named.
	NotTheVolumes = "NotTheVolumes" // The volume asks for something else.
	NotUnderstood = "NotUnderstood" // The volume can't be parsed by the controller's flags and profiles.
	IPNotProved   = "IPNotProved"   // The pod's IP does not lie where those of its node's pods do.
	NotAllowed    = "NotAllowed"    // The policy is against it.
)

// MayEnd reports whether what a denial for such a reason is for may end while the pod stays as it is: policies,
// profiles and flags change.
func MayEnd(reason string) bool {
	return slices.Contains([]string{NotAllowed, IPNotProved, NotUnderstood, NotTheVolumes}, reason)
}

// A Decision is what becomes of a request, and why.
type Decision struct {
	Verdict     Verdict
	Reason      string
	Message     string    // For the pod's author.
	Certificate spec.Spec // Of an approval: what the pod's volume asks for.
	Own         bool      // The pod is the one that the request names, and runs on the node that asks.
	ByNode      bool      // Of a denial: the certificate has IPs, and the ranges of the pod's node may change it.

	// What a record of the decision says besides; whoever reads pods and policies sets it.
	ServiceAccount string   // Of the pod with the request's UID; empty: there is none.
	Policies       []string // The names of the CertificatePolicies that select it.
}

func approve(wanted spec.Spec, pod *corev1.Pod) Decision {
	text := fmt.Sprintf("pod %s on node %s has a volume that asks for this", pod.Name, pod.Spec.NodeName)
	return Decision{Verdict: Approve, Reason: Verified, Message: text, Certificate: wanted, Own: true}
}

func deny(reason, format string, args ...any) Decision {
	text := fmt.Errorf(format, args...).Error()
	return Decision{Verdict: Deny, Reason: reason, Message: message.Cut(text, message.Longest)}
}

// ofItsOwn returns the decision with a pod that is the asking node's own.
func (d Decision) ofItsOwn() Decision {
	d.Own = true
	return d
}

// byNode returns the decision, and that the pod's node may change it if the certificate has IPs.
func (d Decision) byNode(wanted spec.Spec) Decision {
	d.ByNode = hasIPs(wanted)
	return d
}

// unless returns the decision, or none yet while the request is young.
func (d Decision) unless(young bool) Decision {
	if young {
		return Decision{Verdict: Wait}
	}
	return d
}
