package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// mayfly is the namespace of the driver, and the name of its DaemonSet is mayfly.
const mayfly = "mayfly-system"

// No pod fails and no rotation is missed: the workloads would have seen their certificate expire.
func driverReplaced(s *story) {
	const replicas = 6
	s.deploy(replicas, asks("duration=1m"))
	running := s.readyPods(replicas)
	started := s.keepStarting()
	s.Cleanup(func() { started() })
	for _, node := range shared.Nodes {
		if err := shared.Node(node).Command(s.Context(), "pkill", "-KILL", "-x", "mayfly").Run(); err != nil {
			s.Fatalf("kill the driver on %s: %v", node, err)
		}
	}
	s.until("the driver to run again", driverRestarted)
	s.upgrade("mayfly:next")
	defer s.upgrade("mayfly:devel")
	s.rotate(running)
	for _, name := range started() {
		s.ready(name)
		s.untroubled(name)
	}
	s.neverRestarted(replicas)
}

// driverRestarted says whether every node's driver has been restarted and is ready.
func driverRestarted(ctx context.Context) error {
	pods, err := shared.Client.CoreV1().Pods(mayfly).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, pod := range pods.Items {
		if !isReady(&pod) || pod.Status.ContainerStatuses[0].RestartCount == 0 {
			return fmt.Errorf("pod %s is not: %+v", pod.Name, pod.Status.ContainerStatuses)
		}
	}
	return nil
}

// keepStarting starts pod after pod, until the function that it returns is called; that returns their names.
func (s *story) keepStarting() (stop func() []string) {
	var (
		names  []string
		group  sync.WaitGroup
		ctx, c = context.WithCancel(s.Context())
	)
	group.Go(func() {
		for ctx.Err() == nil {
			p := pod(fmt.Sprintf("new-%d", len(names)))
			if _, err := shared.Client.CoreV1().Pods(s.namespace).Create(s.Context(), p, metav1.CreateOptions{}); err != nil {
				s.Error(err)
				return
			}
			names = append(names, p.Name)
			select {
			case <-ctx.Done():
			case <-time.After(2 * time.Second):
			}
		}
	})
	return func() []string {
		c()
		group.Wait()
		return names
	}
}

// upgrade rolls the driver out with another image, which is of the same program.
func (s *story) upgrade(image string) {
	s.Helper()
	ctx := context.WithoutCancel(s.Context())
	archive, err := shared.BuildImage(ctx, image, filepath.Join("..", ".."))
	if err != nil {
		s.Fatal(err)
	}
	if err := shared.Import(ctx, archive); err != nil {
		s.Fatal(err)
	}
	if _, err := shared.Kubectl(ctx, "--namespace", mayfly, "set", "image", "daemonset/mayfly", "mayfly="+image); err != nil {
		s.Fatal(err)
	}
	if err := shared.WaitMayfly(ctx); err != nil {
		s.Fatal(err)
	}
}

// A roll-out is done when the kubelets have registered the driver. A registration whose socket another program removes comes back.
func driverRegistered(s *story) {
	const node = "node-a"
	if _, err := shared.Kubectl(s.Context(), "--namespace", mayfly, "rollout", "restart", "daemonset/mayfly"); err != nil {
		s.Fatal(err)
	}
	if err := shared.WaitMayfly(s.Context()); err != nil {
		s.Fatal(err)
	}
	for _, node := range shared.Nodes {
		if err := registered(s.Context(), node); err != nil {
			s.Errorf("the roll-out is done, and on %s %v", node, err)
		}
	}
	socket := "/var/lib/kubelet/plugins_registry/csi.mayfly.dev-reg.sock"
	if err := shared.Node(node).Command(s.Context(), "rm", socket).Run(); err != nil {
		s.Fatal(err)
	}
	s.until("the socket to be back", func(ctx context.Context) error {
		return shared.Node(node).Command(ctx, "test", "-S", socket).Run()
	})
	s.until("the driver to be registered and ready", func(ctx context.Context) error {
		pod, err := driverPod(ctx, node)
		if err == nil && !isReady(pod) {
			err = fmt.Errorf("it is %+v", pod.Status.ContainerStatuses)
		}
		return errors.Join(err, registered(ctx, node))
	})
	s.start(pod("web", on(node)))
	s.ready("web")
	s.delete("web")
}

// registered says whether a node's kubelet has registered the driver.
func registered(ctx context.Context, node string) error {
	csi, err := shared.Client.StorageV1().CSINodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(csi.Spec.Drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == "csi.mayfly.dev" }) {
		return fmt.Errorf("the CSINode has the drivers %v", csi.Spec.Drivers)
	}
	return nil
}

func deletedWithoutDriver(s *story) {
	s.start(pod("web", on("node-a")))
	web := s.ready("web")
	s.Cleanup(func() { s.selectNodes(`{"mayfly": null}`) })
	s.selectNodes(`{"mayfly": "nowhere"}`)
	s.until("the driver to go", func(ctx context.Context) error {
		pods, err := shared.Client.CoreV1().Pods(mayfly).List(ctx, metav1.ListOptions{})
		if err == nil && len(pods.Items) > 0 {
			err = fmt.Errorf("%d pods are there", len(pods.Items))
		}
		return err
	})
	if _, err := s.kubectl("delete", "pod", "web", "--wait=false"); err != nil {
		s.Fatal(err)
	}
	s.until("the kubelet to miss the driver", func(context.Context) error {
		return logged("node-a/kubelet.log", "TearDown failed", string(web.UID))
	})
	if err := s.podGone("web")(s.Context()); err == nil {
		s.Error("the pod is gone before its volume is")
	}
	s.selectNodes(`{"mayfly": null}`)
	if err := shared.WaitMayfly(s.Context()); err != nil {
		s.Fatal(err)
	}
	s.until("pod web to go", s.podGone("web"))
	s.unmounted(web)
}

// selectNodes changes the node selector of the driver's DaemonSet.
func (s *story) selectNodes(selector string) {
	s.Helper()
	patch := fmt.Appendf(nil, `{"spec": {"template": {"spec": {"nodeSelector": %s}}}}`, selector)
	ctx := context.WithoutCancel(s.Context())
	_, err := shared.Client.AppsV1().DaemonSets(mayfly).Patch(ctx, "mayfly", types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		s.Fatal(err)
	}
}

// logged says whether a line of a log has all of the words.
func logged(log string, words ...string) error {
	text, err := os.ReadFile(filepath.Join(shared.Logs(), log))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if containsAll(line, words) {
			return nil
		}
	}
	return fmt.Errorf("%s has no line with %q", log, words)
}

func containsAll(text string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

// driverPod is the driver's pod on a node.
func driverPod(ctx context.Context, node string) (*corev1.Pod, error) {
	pods, err := shared.Client.CoreV1().Pods(mayfly).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=mayfly", FieldSelector: "spec.nodeName=" + node})
	if err != nil {
		return nil, err
	}
	if len(pods.Items) != 1 {
		return nil, fmt.Errorf("%s has %d pods of the driver", node, len(pods.Items))
	}
	return &pods.Items[0], nil
}
