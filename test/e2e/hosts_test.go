package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// beforeTheNetwork is a node that boots without the configuration of its CNI plugin, which on many clusters a DaemonSet
// brings later. The driver and a pod on the host's network start, while the node is not ready and other pods wait.
func beforeTheNetwork(s *story) {
	const node = "node-b"
	s.driverOf("hostNetwork=true")
	s.types(checkout, rollout) // A pod of the network of pods that still ends would not end without it.
	config := filepath.Join(shared.Dir, node, "cni", "bridge.conflist")
	aside := config + ".aside"
	s.Cleanup(func() {
		_ = os.Rename(aside, config) // Unless the story has done so.
		if err := shared.WaitNode(context.Background(), node); err != nil {
			s.Error(err)
		}
	})
	s.rebooted(node, func() error { return os.Rename(config, aside) })
	s.until("the node to have no network", s.hasNoNetwork(node))

	s.create(pod("usual", on(node), tolerant))
	s.start(pod("early", on(node), tolerant, onHostNetwork, asks("duration=1m")))
	early := s.ready("early")
	s.leaf("early")
	s.rotate([]corev1.Pod{*early})
	s.says("usual", "NetworkNotReady")
	if err := s.hasNoNetwork(node)(s.Context()); err != nil {
		s.Error(err)
	}
	s.delete("early")
	s.unmounted(early)

	if err := os.Rename(aside, config); err != nil {
		s.Fatal(err)
	}
	usual := s.ready("usual")
	s.leaf("usual")
	s.delete("usual")
	s.nothingOf(early, usual)
}

// hasNoNetwork returns a check that a node is not ready, for want of a network.
func (s *story) hasNoNetwork(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		node, err := shared.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range node.Status.Conditions {
			switch {
			case c.Type != corev1.NodeReady:
			case c.Status == corev1.ConditionFalse && strings.Contains(c.Message, "NetworkReady=false"):
				return nil
			default:
				return fmt.Errorf("it is %s: %s", c.Status, c.Message)
			}
		}
		return errors.New("it has not said whether it is ready")
	}
}

// tolerant has the pod start on a node that is not ready.
func tolerant(spec *corev1.PodSpec) {
	spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
}

func onHostNetwork(spec *corev1.PodSpec) { spec.HostNetwork = true }

// kubeletRootLinked is a node whose /var/lib/kubelet is a link to another directory.
func kubeletRootLinked(s *story) {
	const node = "node-b"
	root, elsewhere := onHost(node, kubeletRoot), onHost(node, "/var/data/kubelet")
	unlink := func() error { return errors.Join(os.Remove(root), os.Rename(elsewhere, root)) }
	s.Cleanup(func() {
		s.rebooted(node, unlink)
		s.settled(node)
	})
	s.rebooted(node, func() error {
		err := errors.Join(os.MkdirAll(filepath.Dir(elsewhere), 0o755), os.Rename(root, elsewhere))
		return errors.Join(err, os.Symlink("/var/data/kubelet", root))
	})
	s.lives(node, kubeletRoot)
	s.onNodeRun(node, "test", "-L", kubeletRoot)
	s.onNodeRun(node, "test", "-d", "/var/data/kubelet/pods")
}

// kubeletRootElsewhere is a node whose kubelet has another root, as that of k0s and microk8s, and a driver that is told
// so by the chart.
func kubeletRootElsewhere(s *story) {
	const node, root = "node-b", "/var/data/other/kubelet"
	before, err := driverPod(s.Context(), node)
	if err != nil {
		s.Fatal(err)
	}
	s.driverOf("app.kubeletRootDir="+root, `nodeSelector.kubernetes\.io/hostname=`+node)
	s.Cleanup(func() { // Before the usual driver comes back, which would not be registered.
		s.rebooted(node, func() error {
			return errors.Join(shared.SetKubelet(node), os.RemoveAll(onHost(node, root)))
		})
	})
	s.until("the driver to wait for that root", func(ctx context.Context) error {
		pod, err := driverPod(ctx, node)
		if err == nil && pod.UID == before.UID {
			err = errors.New("the one for the other root is there")
		}
		return err
	})
	s.rebooted(node, func() error { return shared.SetKubelet(node, "--root-dir="+root) })
	s.lives(node, root)
}

// lives has a pod of a node get its certificate, renew it, also after its driver was replaced, and go without a trace.
func (s *story) lives(node, root string) {
	s.Helper()
	s.start(pod("web", on(node), as(1000, 1000), asks("duration=1m")))
	web := s.ready("web")
	s.leaf("web")
	s.rotate([]corev1.Pod{*web})
	driver, err := driverPod(s.Context(), node)
	if err != nil {
		s.Fatal(err)
	}
	if _, err := shared.Kubectl(s.Context(), "--namespace", mayfly, "delete", "pod", driver.Name); err != nil {
		s.Fatal(err)
	}
	s.until("the driver to be ready", driverReady(node))
	s.rotate([]corev1.Pod{*web})
	s.delete("web")
	s.nothingBelow(root, web)
}

const rollout = "kubectl --namespace mayfly-system rollout status daemonset/mayfly --timeout=2m"

// driverOf runs the driver as the chart has it with these values, until the story ends.
func (s *story) driverOf(values ...string) {
	s.Helper()
	s.Cleanup(func() { s.types(checkout, "kubectl apply -f manifests/daemonset.yaml\n"+rollout) })
	s.types(checkout, "helm template mayfly manifests/chart --namespace mayfly-system --kube-version 1.37 "+
		"--show-only templates/daemonset.yaml --set 'mode=none,"+strings.Join(values, ",")+"' | kubectl apply -f -\n")
}

// rebooted cuts a node's power, changes something while it is off, and starts it again.
func (s *story) rebooted(node string, change func() error) {
	s.Helper()
	if err := shared.Node(node).Kill(); err != nil {
		s.Fatal(err)
	}
	if err := errors.Join(change(), shared.StartNode(node)); err != nil {
		s.Fatal(err)
	}
}

// settled waits until a node is ready, and its driver.
func (s *story) settled(node string) {
	s.Helper()
	ctx := context.Background()
	err := shared.WaitNode(ctx, node)
	if err := errors.Join(err, eventually(ctx, "the driver to be ready", driverReady(node))); err != nil {
		s.Error(err)
	}
}

// onHost is the path of a node's file on this machine.
func onHost(node, path string) string { return filepath.Join(shared.Dir, node, path) }
