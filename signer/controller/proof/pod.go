package proof

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// live demands a pod that is the claim's, and runs, or is about to, on the node that asks.
func live(c Claim, pod *corev1.Pod) error {
	switch {
	case pod == nil:
		return early{refusal{PodNotFound, fmt.Sprintf("there is no pod %s", c.Pod)}}
	case pod.UID != c.UID:
		return Refuse(PodNotFound, "pod %s is another one now: its UID is %s", c.Pod, pod.UID)
	case pod.Spec.NodeName != c.Node:
		return Refuse(OtherNode, "pod %s runs on node %q, and node %q asks", c.Pod, pod.Spec.NodeName, c.Node)
	}
	return Live(pod)
}

// Live demands a pod that runs, or is about to.
func Live(pod *corev1.Pod) error {
	switch {
	case mirror(pod):
		return Refuse(PodNotLive, "pod %s is a mirror pod: node %s itself says what it is", pod.Name, pod.Spec.NodeName)
	case pod.DeletionTimestamp != nil:
		return Refuse(PodNotLive, "pod %s is being deleted", pod.Name)
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		return Refuse(PodNotLive, "pod %s has ended: it is %s", pod.Name, pod.Status.Phase)
	}
	return nil
}

// own reports whether the pod is the asker's.
func own(c Claim, pod *corev1.Pod) bool {
	return pod != nil && pod.UID == c.UID && pod.Spec.NodeName == c.Node
}

// mirror reports whether the pod is what a kubelet says of a pod that it has from a file. The API server lets a node create no other pods
// (kubernetes plugin/pkg/admission/noderestriction, admitPodCreate), and those carry the annotation and are owned by the node.
func mirror(pod *corev1.Pod) bool {
	_, annotated := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return annotated || slices.ContainsFunc(pod.OwnerReferences, func(o metav1.OwnerReference) bool { return o.Kind == "Node" && o.APIVersion == "v1" })
}

// errNoIP is that a volume can't be compared yet.
var errNoIP = errors.New("the pod has no IP yet, which its volume asks for")

// volume returns the one that asks for just what the claim says.
func (r Rules) volume(c Claim, pod *corev1.Pod) (spec.Spec, error) {
	var nearest problem.List
	var name string
	var soon error
	if n := asking(pod); n > MaxVolumes {
		return spec.Spec{}, Refuse(NotUnderstood, "pod %s has %d volumes that may ask for certificates: at most %d", pod.Name, n, MaxVolumes)
	}
	for _, source := range r.sources(c, pod) {
		v, problems := r.compare(c, source.Asked)
		if len(problems) == 0 {
			return v, nil
		}
		if errors.Is(problems[0], errNoIP) {
			soon = early{refusal{IPNotProved, fmt.Sprintf("volume %s of pod %s: %v", source.Name, pod.Name, errNoIP)}}
		}
		if nearest == nil || len(problems) < len(nearest) {
			nearest, name = problems, source.Name
		}
	}
	if nearest == nil {
		return spec.Spec{}, Refuse(NoVolume, "pod %s has no %s", pod.Name, r.kind(c))
	}
	if soon != nil {
		return spec.Spec{}, soon
	}
	reason := NotTheVolumes
	if errors.As(nearest[0], new(notUnderstood)) {
		reason = NotUnderstood
	}
	return spec.Spec{}, Refuse(reason, "the request is not what volume %s of pod %s asks for: %v", name, pod.Name, nearest)
}

// MaxVolumes is how many volumes of a pod are looked at: each request costs as much as all of them.
const MaxVolumes = 128

// asking returns how many of the pod's volumes may ask for certificates: those of CSI drivers, and podCertificate sources of others.
func asking(pod *corev1.Pod) (n int) {
	for _, v := range pod.Spec.Volumes {
		switch {
		case v.CSI != nil:
			n++
		case v.Projected != nil:
			for _, source := range v.Projected.Sources {
				if source.PodCertificate != nil {
					n++
				}
			}
		}
	}
	return n
}

// sources returns the places in the pod's spec that a claim may be about.
func (r Rules) sources(c Claim, pod *corev1.Pod) (all []Source) {
	if c.Sources != nil {
		return c.Sources(pod)
	}
	for _, v := range pod.Spec.Volumes {
		if r.ours(v) && (c.VolumeID == "" || c.VolumeID == VolumeID(pod, v.Name)) {
			all = append(all, Source{v.Name, r.ask(pod, v)})
		}
	}
	return all
}

func (r Rules) kind(c Claim) string {
	if c.Kind != "" {
		return c.Kind
	}
	var names []string
	for _, driver := range r.Drivers {
		names = append(names, driver.Name)
	}
	kind := "volume of " + strings.Join(names, " or ")
	if c.VolumeID != "" {
		kind += fmt.Sprintf(" with the id %q", c.VolumeID)
	}
	return kind
}

// A notUnderstood volume may be a mistake of its author, or of the operator.
type notUnderstood struct{ err error }

func (n notUnderstood) Error() string {
	return fmt.Sprintf("the volume is not understood by this controller, which may be older than the node plugin: %v", n.err)
}

// compare derives from a pod's volume what its node derives, and is the volume with all that is different.
func (r Rules) compare(c Claim, asked spec.Asked) (spec.Spec, problem.List) {
	v, err := r.understand(asked)
	if err != nil {
		return v, problem.List{err}
	}
	return v, c.Against(v)
}

// understand is the volume that was asked for.
func (r Rules) understand(asked spec.Asked) (spec.Spec, error) {
	v, err := spec.Parse(asked, r.Defaults)
	if err != nil { // An earlier node plugin may have taken it.
		if earlier, problems := spec.ParseEarlier(asked, r.Defaults); problems == nil {
			v, err = earlier, nil
		}
	}
	switch {
	case err != nil:
		return v, notUnderstood{err}
	case v.NeedsIP && len(asked.IPs) == 0:
		return v, errNoIP
	}
	return v, nil
}

// Volumes are those of the pod's volumes that are the driver's.
func (r Rules) Volumes(pod *corev1.Pod) []corev1.Volume {
	return slices.DeleteFunc(slices.Clone(pod.Spec.Volumes), func(v corev1.Volume) bool { return !r.ours(v) })
}

// Allowed is what would be said against a certificate for the volume, whoever asks, in words for the pod's author; nil: nothing. The evidence must have the pod and its node.
func (r Rules) Allowed(source corev1.Volume, e Evidence) error {
	v, err := r.understand(r.ask(e.Pod, source))
	if err != nil {
		return err
	}
	return r.allowed(v, e)
}

// VolumeID is the id that a kubelet gives to an inline volume (kubernetes pkg/volume/csi/csi_mounter.go, makeVolumeHandle).
func VolumeID(pod *corev1.Pod, name string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(string(pod.UID)+name)))
}

// ours reports whether a volume is one of the CSI driver.
func (r Rules) ours(v corev1.Volume) bool {
	return v.CSI != nil && slices.ContainsFunc(r.Drivers, func(d spec.DriverName) bool { return d.Name == v.CSI.Driver })
}

// ask returns what the node plugin is asked for the pod's volume, which is one of the driver: in the dialect of its name.
func (r Rules) ask(pod *corev1.Pod, source corev1.Volume) spec.Asked {
	asked := Ask(pod, source)
	for _, driver := range r.Drivers {
		if driver.Name == asked.Driver {
			asked.Dialect = driver.Dialect
		}
	}
	return asked
}

// Ask is what the kubelet asks for the pod's volume, which must be an inline one.
func Ask(pod *corev1.Pod, source corev1.Volume) spec.Asked {
	return AskedBy(pod, source.CSI.Driver, source.CSI.VolumeAttributes)
}

// AskedBy is what the kubelet would ask a driver for the pod, with some attributes.
func AskedBy(pod *corev1.Pod, driver string, attributes map[string]string) spec.Asked {
	asked := spec.AskedBy(identity(pod), driver, attributes)
	asked.IPs = ips(pod)
	return asked
}

func identity(pod *corev1.Pod) signer.Pod {
	return signer.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), ServiceAccount: pod.Spec.ServiceAccountName, Node: pod.Spec.NodeName}
}

func ips(pod *corev1.Pod) (texts []string) {
	for _, ip := range pod.Status.PodIPs {
		texts = append(texts, ip.IP)
	}
	return texts
}

// allowed demands that the pod's IPs are proved, where the volume has them, and asks the policy.
func (r Rules) allowed(v spec.Spec, e Evidence) error {
	proved, err := r.proved(v, e)
	if err != nil {
		return err
	}
	id, err := r.Defaults.SPIFFEID(v.Pod, ips(e.Pod))
	if err != nil {
		id = nil // The pod has none.
	}
	if err := r.Policy.Check(v, policy.Identity{SPIFFEID: id, IPs: proved}); err != nil {
		return Refuse(NotAllowed, "%v", err)
	}
	return nil
}

// proved are those of a pod's IPs that lie where pods of its node have theirs: a node writes the status of its pods. Where the volume has the pod's IP, all must,
// or lie where the policy says that they may.
func (r Rules) proved(v spec.Spec, e Evidence) (proved []netip.Addr, err error) {
	if !v.NeedsIP && len(v.IPs) == 0 {
		return nil, nil
	}
	ranges := slices.Clone(r.PodCIDRs)
	if e.Node != nil {
		ranges = append(ranges, podCIDRs(e.Node)...)
	}
	for _, text := range ips(e.Pod) {
		ip, err := netip.ParseAddr(text)
		switch {
		case err == nil && within(ranges, ip):
			proved = append(proved, ip.Unmap())
		case e.Node == nil:
			return nil, errNodeWanted
		case v.NeedsIP && (err != nil || !within(r.Policy.Ranges(v.Pod), ip)):
			return nil, Refuse(IPNotProved, "the pod's IP %s does not lie in the spec.podCIDRs of node %s, nor in those of the controller's --pod-cidr or of a CertificatePolicy", text, e.Node.Name)
		}
	}
	return proved, nil
}

func within(ranges []netip.Prefix, ip netip.Addr) bool {
	return slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(ip.Unmap()) })
}

func podCIDRs(node *corev1.Node) (ranges []netip.Prefix) {
	for _, text := range node.Spec.PodCIDRs {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			ranges = append(ranges, prefix)
		}
	}
	return ranges
}
