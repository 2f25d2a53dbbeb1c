// Package approver decides on the CertificateRequests of Mayfly's node plugins: a request is approved only if the node that asks runs the pod, and
// the pod has a volume that asks for just this.
//
// What a node may write proves nothing: of a pod that is its spec, of a request who made it, as the API server told cert-manager's webhook.
package approver

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/policy"
)

// Rules are what a decision goes by.
type Rules struct {
	NodePlugin string   // The user that the node plugins are for the API server.
	Drivers    []string // The names of the CSI driver.
	Defaults   volume.Defaults
	Policy     policy.Policy
	PodCIDRs   []netip.Prefix // Where pods' IPs lie, besides their nodes' own ranges.
}

// A Question is what a decision is about.
type Question struct {
	Request *cmapi.CertificateRequest
	Pod     *corev1.Pod  // The one that the request names, as it is now; nil: there is none.
	Node    *corev1.Node // The pod's; nil: not looked at.
}

// An Outcome is what is to be done with a request.
type Outcome int

// The outcomes.
const (
	Leave      Outcome = iota // It is not ours, or it is decided.
	Wait                      // What it needs may become visible.
	LookAtNode                // The pod's node decides.
	Approve
	Deny
)

// A Verdict is a decision.
type Verdict struct {
	Outcome Outcome
	Reason  string // One word, of an approval or a denial.
	Message string // For the pod's author.
}

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
	IPNotProved   = "IPNotProved"   // The pod's IP does not lie where pods of its node have theirs.
	NotAllowed    = "NotAllowed"    // The policy is against it.
)

// patience is for how long a request is young: what it needs may not be visible yet.
const patience = 15 * time.Second

// nodeName is the key of a caller's node (k8s.io/apiserver pkg/authentication/serviceaccount, NodeNameKey).
const nodeName = "authentication.kubernetes.io/node-name"

// A refusal is why a request is denied.
type refusal struct{ reason, message string }

func (r refusal) Error() string { return r.message }

func refuse(reason, format string, args ...any) error {
	return refusal{reason, fmt.Sprintf(format, args...)}
}

// early is a refusal that counts once the request is not young any more.
type early struct{ refusal }

// errNodeWanted is that the pod's node must be looked at.
var errNodeWanted = errors.New("the pod's node decides")

// Decide is what to do at the time now.
func (r Rules) Decide(q Question, now time.Time) Verdict {
	if !r.Concern(q.Request) {
		return Verdict{Outcome: Leave}
	}
	err := r.judge(q)
	var soon early
	var no refusal
	switch {
	case err == nil:
		return Verdict{Approve, Verified, fmt.Sprintf("pod %s on node %s has a volume that asks for this", q.Pod.Name, q.Pod.Spec.NodeName)}
	case errors.Is(err, errNodeWanted):
		return Verdict{Outcome: LookAtNode}
	case errors.As(err, &soon):
		if now.Sub(q.Request.CreationTimestamp.Time) < patience {
			return Verdict{Outcome: Wait}
		}
		no = soon.refusal
	default:
		errors.As(err, &no)
	}
	return Verdict{Deny, no.reason, brief(no.message)}
}

// Concern reports whether the request is one to decide on.
func (r Rules) Concern(cr *cmapi.CertificateRequest) bool {
	return cr.Spec.Username == r.NodePlugin && cr.DeletionTimestamp == nil && !decided(cr)
}

func decided(cr *cmapi.CertificateRequest) bool {
	return slices.ContainsFunc(cr.Status.Conditions, func(c cmapi.CertificateRequestCondition) bool {
		return (c.Type == cmapi.CertificateRequestConditionApproved || c.Type == cmapi.CertificateRequestConditionDenied) && c.Status == cmmeta.ConditionTrue
	})
}

// judge goes through what must hold; nil: all does.
func (r Rules) judge(q Question) error {
	node := q.Request.Spec.Extra[nodeName]
	if len(node) != 1 || node[0] == "" {
		return refuse(CallerUnknown, "the request does not say on which node %s runs: its token must be bound to its pod (%s)", r.NodePlugin, nodeName)
	}
	owner, err := Owner(q.Request)
	if err != nil {
		return err
	}
	if err := live(owner, q.Pod, node[0]); err != nil {
		return err
	}
	v, err := r.volume(q)
	if err != nil {
		return err
	}
	return r.allowed(v, q)
}

// Owner is the reference to the pod that the request is for.
func Owner(cr *cmapi.CertificateRequest) (metav1.OwnerReference, error) {
	owners := cr.OwnerReferences
	if len(owners) != 1 || owners[0].APIVersion != "v1" || owners[0].Kind != "Pod" || owners[0].Name == "" || owners[0].UID == "" {
		return metav1.OwnerReference{}, refuse(NotOfAPod, "the request must be owned by one pod and nothing else")
	}
	return owners[0], nil
}

// live demands a pod that runs, or is about to, on the node that asks.
func live(owner metav1.OwnerReference, pod *corev1.Pod, node string) error {
	switch {
	case pod == nil:
		return early{refusal{PodNotFound, fmt.Sprintf("there is no pod %s", owner.Name)}}
	case pod.UID != owner.UID:
		return refuse(PodNotFound, "pod %s is another one now: its UID is %s", owner.Name, pod.UID)
	case pod.Spec.NodeName != node:
		return refuse(OtherNode, "pod %s runs on node %q, and node %q asks", owner.Name, pod.Spec.NodeName, node)
	case mirror(pod):
		return refuse(PodNotLive, "pod %s is a mirror pod: node %s itself says what it is", owner.Name, node)
	case pod.DeletionTimestamp != nil:
		return refuse(PodNotLive, "pod %s is being deleted", owner.Name)
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		return refuse(PodNotLive, "pod %s has ended: it is %s", owner.Name, pod.Status.Phase)
	}
	return nil
}

// mirror reports whether the pod is what a kubelet says of a pod that it has from a file. The API server lets a node create no other pods
// (kubernetes plugin/pkg/admission/noderestriction, admitPodCreate), and those carry the annotation and are owned by the node.
func mirror(pod *corev1.Pod) bool {
	_, annotated := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return annotated || slices.ContainsFunc(pod.OwnerReferences, func(o metav1.OwnerReference) bool { return o.Kind == "Node" && o.APIVersion == "v1" })
}

// volume is the one that asks for just what the request asks for.
func (r Rules) volume(q Question) (volume.Volume, error) {
	defaults := r.Defaults
	defaults.AnyTrustFile = true // Files of nodes are the nodes' matter.
	var nearest volume.Problems
	var name string
	var soon error
	for _, source := range q.Pod.Spec.Volumes {
		if source.CSI == nil || !slices.Contains(r.Drivers, source.CSI.Driver) {
			continue
		}
		v, problems := compare(q.Request, ask(q.Pod, source.CSI), defaults)
		if len(problems) == 0 {
			return v, nil
		}
		if errors.Is(problems[0], errNoIP) {
			soon = early{refusal{IPNotProved, fmt.Sprintf("volume %s of pod %s: %v", source.Name, q.Pod.Name, errNoIP)}}
		}
		if nearest == nil || len(problems) < len(nearest) {
			nearest, name = problems, source.Name
		}
	}
	if nearest == nil {
		return volume.Volume{}, refuse(NoVolume, "pod %s has no volume of %s", q.Pod.Name, strings.Join(r.Drivers, " or "))
	}
	if soon != nil {
		return volume.Volume{}, soon
	}
	return volume.Volume{}, refuse(NotTheVolumes, "the request is not what volume %s of pod %s asks for: %v", name, q.Pod.Name, nearest)
}

// ask is what the kubelet asks for the pod's volume.
func ask(pod *corev1.Pod, csi *corev1.CSIVolumeSource) volume.Asked {
	asked := volume.AskedBy(signer.Pod{
		Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), ServiceAccount: pod.Spec.ServiceAccountName,
	}, csi.Driver, csi.VolumeAttributes)
	for _, ip := range pod.Status.PodIPs {
		asked.IPs = append(asked.IPs, ip.IP)
	}
	return asked
}

// allowed demands that the pod's IPs are proved, where the volume has them, and asks the policy.
func (r Rules) allowed(v volume.Volume, q Question) error {
	var texts []string
	for _, ip := range q.Pod.Status.PodIPs {
		texts = append(texts, ip.IP)
	}
	proved, err := r.proved(v, texts, q)
	if err != nil {
		return err
	}
	id, err := r.Defaults.SPIFFEID(v.Pod, texts)
	if err != nil {
		id = nil // The pod has none.
	}
	if err := r.Policy.Check(v, policy.Identity{SPIFFEID: id, IPs: proved}); err != nil {
		return refuse(NotAllowed, "%v", err)
	}
	return nil
}

// proved are those of a pod's IPs that lie where pods of its node have theirs: a node writes the status of its pods. Where the volume has the pod's IP, all must.
func (r Rules) proved(v volume.Volume, ips []string, q Question) (proved []netip.Addr, err error) {
	if !v.NeedsIP && (len(v.IPs) == 0 || r.Policy.AnyName) {
		return nil, nil
	}
	ranges := slices.Clone(r.PodCIDRs)
	if q.Node != nil {
		ranges = append(ranges, podCIDRs(q.Node)...)
	}
	for _, text := range ips {
		ip, err := netip.ParseAddr(text)
		if err == nil && slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(ip.Unmap()) }) {
			proved = append(proved, ip.Unmap())
			continue
		}
		if q.Node == nil {
			return nil, errNodeWanted
		}
		if v.NeedsIP {
			return nil, refuse(IPNotProved, "the pod's IP %s does not lie in the spec.podCIDRs of node %s, nor in those of the controller's --pod-cidr", text, q.Node.Name)
		}
	}
	return proved, nil
}

func podCIDRs(node *corev1.Node) (ranges []netip.Prefix) {
	for _, text := range node.Spec.PodCIDRs {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			ranges = append(ranges, prefix)
		}
	}
	return ranges
}

// brief bounds a message: it goes into a status, and from there into events.
func brief(message string) string {
	const longest = 1024
	if len(message) <= longest {
		return message
	}
	return strings.ToValidUTF8(message[:longest], "") + "…"
}
