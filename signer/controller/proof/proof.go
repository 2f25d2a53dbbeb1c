// Package proof is what the API server's own word proves of a pod: that it runs on the node that asks, and that a volume of it asks for just what the node asks for.
//
// What a node may write proves nothing. A node writes the status and the annotations of its pods; it does not write their specs, nor spec.podCIDRs.
package proof

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// Rules are what a claim is judged by.
type Rules struct {
	Drivers  []spec.DriverName // The names of the CSI driver.
	Defaults spec.Defaults
	Policy   Policy
	PodCIDRs []netip.Prefix // Where pods' IPs lie, besides their nodes' own ranges.
}

// A Policy is which identities pods may have.
type Policy interface {
	// Check is what the policy has against the volume, in words for the pod's author; nil: nothing.
	Check(v spec.Spec, of policy.Identity) error
	// Ranges are where the pod's IPs may lie, besides where pods of its node have theirs.
	Ranges(pod signer.Pod) []netip.Prefix
}

// A Claim is what a node says of a pod: that it runs there, and that a volume of it asks for something.
type Claim struct {
	Namespace, Pod string
	UID            types.UID
	Node           string                       // Who asks, or where who asks runs.
	MadeAt         time.Time                    // As the API server has it.
	VolumeID       string                       // The one that is meant; empty: any.
	Against        func(spec.Spec) problem.List // All that is asked for and that the volume does not want, or the other way round.

	Sources func(*corev1.Pod) []Source // Where in the pod's spec to look; nil: its volumes of the driver.
	Kind    string                     // What those are, for a message; empty: those of the driver.
}

// A Source is a place in a pod's spec that asks for a certificate.
type Source struct {
	Name  string
	Asked spec.Asked
}

// Evidence is what the API server says now.
type Evidence struct {
	Pod  *corev1.Pod  // The one that the claim names; nil: there is none.
	Node *corev1.Node // The pod's; nil: not looked at.
}

// An Outcome is what is to be done with a claim.
type Outcome int

// The outcomes. The zero one is none.
const (
	_          Outcome = iota
	Wait               // What it needs may become visible.
	LookAtNode         // The pod's node decides.
	Approve
	Deny
)

// A Verdict is a decision.
type Verdict struct {
	Outcome Outcome
	Reason  string      // One word, of an approval or a denial.
	Message string      // For the pod's author.
	Volume  *spec.Spec  // Of an approval: the volume that asks for this.
	Pod     *corev1.Pod // The one that is named, if that is the asker's own: it has the UID, and runs on the node that asks.
}

// Patience is for how long a claim is young: what it needs may not be visible yet.
const Patience = 15 * time.Second

// Judge is what to do with a claim at the time now.
func (r Rules) Judge(c Claim, e Evidence, now time.Time) Verdict {
	v, err := r.judge(c, e)
	var soon early
	switch {
	case err == nil:
		return Verdict{Approve, Verified, fmt.Sprintf("pod %s on node %s has a volume that asks for this", e.Pod.Name, e.Pod.Spec.NodeName), &v, e.Pod}
	case errors.Is(err, errNodeWanted):
		return Verdict{Outcome: LookAtNode}
	case errors.As(err, &soon) && now.Sub(c.MadeAt) < Patience:
		return Verdict{Outcome: Wait}
	}
	verdict := Denied(err)
	if own(c, e.Pod) {
		verdict.Pod = e.Pod
	}
	return verdict
}

// errNodeWanted is that the pod's node must be looked at.
var errNodeWanted = errors.New("the pod's node decides")

// judge goes through what must hold; nil: all does.
func (r Rules) judge(c Claim, e Evidence) (spec.Spec, error) {
	if err := live(c, e.Pod); err != nil {
		return spec.Spec{}, err
	}
	v, err := r.volume(c, e.Pod)
	if err != nil {
		return v, err
	}
	return v, r.allowed(v, e)
}
