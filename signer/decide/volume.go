package decide

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/mayfly-csi/mayfly/signer/spec"
)

// MaxVolumes is how many volumes of a pod may ask for certificates.
const MaxVolumes = 128

// A Volume is a place in a pod's spec that asks for a certificate.
type Volume struct {
	Name  string
	Asked spec.Asked
}

// find returns the volume that the request is for.
func (r Rules) find(of Request, pod *corev1.Pod) (Volume, error) {
	if n := asking(pod); n > MaxVolumes {
		return Volume{}, fmt.Errorf("pod %s has %d volumes that may ask for certificates: at most %d",
			pod.Name, n, MaxVolumes)
	}
	switch {
	case of.Native != nil:
		return r.findNative(of, pod)
	case of.Volume == "" && of.Object != nil:
		return r.findAny(of, pod)
	case of.Volume == "":
		return Volume{}, errUserAnnotations()
	}
	for _, v := range pod.Spec.Volumes {
		if VolumeID(pod, v.Name) != of.Volume {
			continue
		}
		if found, is := r.volume(pod, v); is {
			return found, nil
		}
	}
	return Volume{}, fmt.Errorf("pod %s has no volume of %s with the id %q", pod.Name, r.names(), of.Volume)
}

// findAny returns a volume of the driver that asks for what the request does, or else the last one: node plugins
// from before 0.1.0 don't say for which volume they ask.
func (r Rules) findAny(of Request, pod *corev1.Pod) (v Volume, err error) {
	volumes := r.Volumes(pod)
	for _, v = range volumes {
		if wanted, err := r.derive(v.Asked); err == nil && !wanted.LacksIP && len(r.differences(of, wanted)) == 0 {
			break
		}
	}
	if len(volumes) == 0 {
		err = fmt.Errorf("pod %s has no volume of %s", pod.Name, r.names())
	}
	return v, err
}

// asking returns how many of the pod's volumes may ask for certificates: those of CSI drivers, and podCertificate
// sources of others.
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

// Volumes returns the pod's volumes of the driver.
func (r Rules) Volumes(pod *corev1.Pod) (all []Volume) {
	for _, v := range pod.Spec.Volumes {
		if ours, is := r.volume(pod, v); is {
			all = append(all, ours)
		}
	}
	return all
}

// volume returns a volume of the driver with what its node plugin is asked for, in the dialect of the driver's name.
func (r Rules) volume(pod *corev1.Pod, v corev1.Volume) (Volume, bool) {
	i := slices.IndexFunc(r.Drivers, func(d spec.DriverName) bool { return v.CSI != nil && d.Name == v.CSI.Driver })
	if i < 0 {
		return Volume{}, false
	}
	asked := ask(pod, v.CSI.Driver, v.CSI.VolumeAttributes)
	asked.Dialect = r.Drivers[i].Dialect
	return Volume{v.Name, asked}, true
}

// ask returns what the kubelet asks a driver for the pod, with some attributes.
func ask(pod *corev1.Pod, driver string, attributes map[string]string) spec.Asked {
	asked := spec.AskedBy(identity(pod), driver, attributes)
	asked.IPs = ips(pod)
	return asked
}

// VolumeID returns the id that a kubelet gives to an inline volume (kubernetes pkg/volume/csi/csi_mounter.go,
// makeVolumeHandle).
func VolumeID(pod *corev1.Pod, name string) string {
	sum := sha256.Sum256([]byte(string(pod.UID) + name))
	return "csi-" + hex.EncodeToString(sum[:])
}

// derive returns the certificate that a volume asks for, as its node plugin derives it. The error's subject is the
// volume.
func (r Rules) derive(asked spec.Asked) (spec.Spec, error) {
	wanted, err := spec.Parse(asked, r.Defaults)
	if err != nil { // An earlier node plugin may have taken it.
		if earlier, problems := spec.ParseEarlier(asked, r.Defaults); problems == nil {
			return earlier, nil
		}
		const format = "is not understood by this controller, which may be older than the node plugin: %w"
		return wanted, fmt.Errorf(format, err)
	}
	return wanted, nil
}

// names returns the driver's names, for a message.
func (r Rules) names() string {
	var names []string
	for _, driver := range r.Drivers {
		names = append(names, driver.Name)
	}
	return strings.Join(names, " or ")
}
