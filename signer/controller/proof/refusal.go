package proof

import (
	"errors"
	"fmt"
	"slices"

	"github.com/mayfly-csi/mayfly/signer/message"
)

// The reasons.
const (
	Verified      = "VerifiedByMayfly"
	CallerUnknown = "CallerUnknown" // The request does not say which node asks.
	NotOfAPod     = "NotOfAPod"     // It is not owned by one pod.
	PodNotFound   = "PodNotFound"   // There is no such pod, or it is another one.
	OtherNode     = "OtherNode"     // The pod runs on another node.
	PodNotLive    = "PodNotLive"    // It is a mirror of a file of the node, is being deleted, or has ended.
	NoVolume      = "NoVolume"      // The pod has no volume of the driver.
	NotTheVolumes = "NotTheVolumes" // No volume of the pod asks for this.
	NotUnderstood = "NotUnderstood" // The pod's volume is not understood, as the controller's flags and profiles are.
	IPNotProved   = "IPNotProved"   // The pod's IP does not lie where pods of its node have theirs.
	NotAllowed    = "NotAllowed"    // The policy is against it.
)

// MayEnd reports whether what a denial for such a reason is for may end while the pod stays as it is: policies, profiles and flags change.
func MayEnd(reason string) bool {
	return slices.Contains([]string{NotAllowed, IPNotProved, NotUnderstood, NotTheVolumes}, reason)
}

// A refusal is why a claim is denied.
type refusal struct{ reason, message string }

func (r refusal) Error() string { return r.message }

// Refuse is the error of a claim that is denied, with one of the reasons.
func Refuse(reason, format string, args ...any) error {
	return refusal{reason, fmt.Sprintf(format, args...)}
}

// early is a refusal that counts once the claim is not young any more.
type early struct{ refusal }

func (e early) Unwrap() error { return e.refusal }

// Denied is the verdict of what Refuse made.
func Denied(err error) Verdict {
	no := refusal{NotAllowed, err.Error()}
	errors.As(err, &no)
	return Verdict{Outcome: Deny, Reason: no.reason, Message: message.Cut(no.message, message.Longest)}
}
