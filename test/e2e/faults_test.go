package e2e

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/test/faults"
)

// troubleshooting has the messages of the faults that these stories make.
const troubleshooting = "../../docs/troubleshooting.md"

// faultsOfTheKubelet are those of docs/troubleshooting.md that the kubelet finds, before or instead of the driver.
func faultsOfTheKubelet(s *story) {
	s.absentDriver("absent.example.org")
	made := &madeFaults{story: s}
	made.says(
		"kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: driver name … not found in the list of registered CSI drivers",
		func(spec *corev1.PodSpec) { spec.Volumes[0].CSI.Driver = "absent.example.org" })
	made.says(
		`fetching NodePublishSecretRef … failed: kubernetes.io/csi: failed to find the secret … in the namespace … with error: secrets "…" not found`,
		func(spec *corev1.PodSpec) {
			spec.Volumes[0].CSI.NodePublishSecretRef = &corev1.LocalObjectReference{Name: "nobody"}
		})
	defer s.must("apply", "--filename", "../../manifests/csidriver.yaml")
	s.must("patch", "csidriver", "csi.mayfly.dev", "--patch", `{"spec": {"podInfoOnMount": false}}`)
	made.says("csi.storage.k8s.io/pod.name is missing: the CSIDriver object needs podInfoOnMount: true; …", asks())
	faults.Hold(s, troubleshooting, "faultsOfTheKubelet", made.messages)
}

// absentDriver makes the CSIDriver object of a driver that runs nowhere, until the story ends.
func (s *story) absentDriver(name string) {
	s.Helper()
	_, err := shared.Client.StorageV1().CSIDrivers().Create(s.Context(), &storagev1.CSIDriver{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: storagev1.CSIDriverSpec{
			AttachRequired:       new(false),
			VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { s.must("delete", "csidriver", name) })
}

// madeFaults are the messages of the faults that a story has made.
type madeFaults struct {
	*story
	messages []string
}

// says makes a pod, and waits until a warning of its events is the message.
func (m *madeFaults) says(message string, change change) {
	m.Helper()
	name := fmt.Sprintf("web-%d", len(m.messages))
	m.messages = append(m.messages, message)
	m.create(pod(name, change))
	m.until(name+" to say "+message, func(ctx context.Context) error {
		events, err := shared.Client.CoreV1().Events(m.namespace).List(ctx, metav1.ListOptions{
			FieldSelector: "type=Warning,involvedObject.name=" + name,
		})
		if err != nil {
			return err
		}
		var said []string
		for _, e := range events.Items {
			if faults.Match(message, faults.Reason(e.Message)) {
				return nil
			}
			said = append(said, faults.Reason(e.Message))
		}
		return fmt.Errorf("its events are\n%s", strings.Join(said, "\n"))
	})
	m.must("delete", "pod", name)
}
