package e2e

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A pod that is deleted by force is gone from the API server before its node knows. Its kubelet ends it later.
func deletedByForce(s *story) {
	pods := s.ofEachKind("node-a")
	s.force(pods)
	s.nothingOf(pods...)
}

// A kubelet that was away ends the pods that it does not find at the API server any more, from what it has on disk. Of a volume whose file
// it has lost it knows nothing, and never unmounts it: an operator does, as troubleshooting.md says, and then all of it goes.
func deletedWithoutKubelet(s *story) {
	const node = "node-a"
	pods := s.ofEachKind(node)
	s.start(pod("lost", on(node)))
	lost := s.ready("lost")
	s.Cleanup(func() {
		if err := shared.Node(node).Start(context.Background(), "kubelet"); err != nil {
			s.Error(err)
		}
	})
	if err := shared.Node(node).Stop(s.Context(), "kubelet"); err != nil {
		s.Fatal(err)
	}
	target := podDir(lost) + "/volumes/kubernetes.io~csi/tls/mount"
	s.onNodeRun(node, "rm", filepath.Dir(target)+"/vol_data.json")
	s.force(append(pods, lost))
	if err := shared.Node(node).Start(s.Context(), "kubelet"); err != nil {
		s.Fatal(err)
	}
	s.nothingOf(pods...)
	s.until("the kubelet to give up a volume", func(context.Context) error {
		return logged(node+"/kubelet.log", "could not be reconstructed", string(lost.UID))
	})
	s.onNodeRun(node, "test", "-f", target+"/tls.key")
	s.onNodeRun(node, "umount", target)
	s.until("the kubelet to remove the pod's directory", func(ctx context.Context) error {
		return absent(ctx, node, podDir(lost))
	})
	s.onNodeRun(node, "pkill", "-KILL", "-x", "mayfly") // The next one looks at its start, and so does each once an hour.
	s.nothingOf(lost)
	s.until("the driver to be ready", driverReady(node))
}

// ofEachKind are pods on a node: one that is left in peace, one that renews all the time, one that waits for its certificate.
func (s *story) ofEachKind(node string) (pods []*corev1.Pod) {
	s.Helper()
	s.start(pod("usual", on(node)), pod("renewing", on(node), asks("duration=30s")))
	s.create(pod("pending", on(node), asks("issuer-name=nobody")))
	s.says("pending", "FailedMount")
	for _, name := range []string{"usual", "renewing", "pending"} {
		pod, err := shared.Client.CoreV1().Pods(s.namespace).Get(s.Context(), name, metav1.GetOptions{})
		if err != nil {
			s.Fatal(err)
		}
		s.onNodeRun(node, "test", "-d", podDir(pod))
		pods = append(pods, pod)
	}
	return pods
}

// force deletes pods as kubectl does by force, whatever their kubelet does.
func (s *story) force(pods []*corev1.Pod) {
	s.Helper()
	for _, pod := range pods {
		s.must("delete", "pod", pod.Name, "--force", "--grace-period=0", "--wait=false")
	}
	for _, pod := range pods {
		if err := s.podGone(pod.Name)(s.Context()); err != nil {
			s.Fatalf("pod %s was deleted by force: %v", pod.Name, err)
		}
	}
}

// nothingOf waits until nothing is left of pods on their nodes: no mount, no directory, no record. Nor has the namespace requests, unless it has other pods.
func (s *story) nothingOf(pods ...*corev1.Pod) {
	s.Helper()
	s.nothingBelow(kubeletRoot, pods...)
}

// nothingBelow is the same where the kubelets' root is another one.
func (s *story) nothingBelow(root string, pods ...*corev1.Pod) {
	s.Helper()
	for _, pod := range pods {
		s.unmounted(pod)
		state := fmt.Sprintf("%s/plugins/csi.mayfly.dev/volumes/csi-%x", root, sha256.Sum256([]byte(string(pod.UID)+"tls")))
		dir := root + "/pods/" + string(pod.UID)
		s.until("what is left of pod "+pod.Name+" to go", func(ctx context.Context) error {
			return errors.Join(absent(ctx, pod.Spec.NodeName, state), absent(ctx, pod.Spec.NodeName, dir))
		})
	}
	s.requested(0)
}

// kubeletRoot is the kubelets' root where nothing says otherwise.
const kubeletRoot = "/var/lib/kubelet"

// podDir is the directory that a kubelet has for a pod.
func podDir(pod *corev1.Pod) string { return kubeletRoot + "/pods/" + string(pod.UID) }

// absent demands that a node does not have a file.
func absent(ctx context.Context, node, path string) error {
	if out, err := shared.Node(node).Command(ctx, "find", path, "-maxdepth", "4").CombinedOutput(); err == nil {
		return fmt.Errorf("%s has %s", node, out)
	}
	return nil
}

// onNodeRun runs a command on a node's machine, which must succeed.
func (s *story) onNodeRun(node string, argv ...string) {
	s.Helper()
	if out, err := shared.Node(node).Command(s.Context(), argv...).CombinedOutput(); err != nil {
		s.Fatalf("%v on %s: %v: %s", argv, node, err, out)
	}
}

// driverReady says whether a node's driver is ready.
func driverReady(node string) func(context.Context) error {
	return func(ctx context.Context) error {
		pod, err := driverPod(ctx, node)
		if err == nil && !isReady(pod) {
			err = fmt.Errorf("it is %+v", pod.Status.ContainerStatuses)
		}
		return err
	}
}
