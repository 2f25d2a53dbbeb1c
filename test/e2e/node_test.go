package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// After its start the kubelet publishes every volume again (kubernetes pkg/kubelet/volumemanager/reconciler/reconstruct.go). The pods must not notice,
// and nothing may be mounted twice.
func kubeletKilled(s *story) {
	const node, replicas = "node-a", 3
	s.deploy(replicas, on(node), asks("duration=1m"))
	pods := s.readyPods(replicas)
	before := s.volumes(node)
	if err := shared.Node(node).KillService(s.Context(), "kubelet"); err != nil {
		s.Fatal(err)
	}
	s.start(pod("new", on(node)))
	s.rotate(pods)
	s.delete("new")
	s.until("the mounts to be as before", func(context.Context) error {
		if after := s.volumes(node); !slices.Equal(after, before) {
			return fmt.Errorf("they were %q and are %q", before, after)
		}
		return nil
	})
	s.neverRestarted(replicas)
}

// volumes are the mount points of ours on a node, in order.
func (s *story) volumes(node string) []string {
	s.Helper()
	points, err := volumes(s.Context(), node)
	if err != nil {
		s.Fatal(err)
	}
	return points
}

func volumes(ctx context.Context, node string) ([]string, error) {
	lines, err := mounts(ctx, node)
	var points []string
	for _, line := range lines {
		// The fifth field is the mount point (proc_pid_mountinfo(5)). A node begins with a copy of the machine's mounts:
		// those of programs beside it lie elsewhere.
		point := strings.Fields(line)[4]
		if strings.HasPrefix(point, "/var/lib/kubelet/") &&
			(strings.Contains(point, "kubernetes.io~csi") || strings.Contains(point, "csi.mayfly.dev")) {
			points = append(points, point)
		}
	}
	slices.Sort(points)
	return points, err
}

// The pods are the same after the reboot, and their tmpfs is gone with the certificates in it. Of those that were deleted by force while the node
// was down nothing is left.
func nodeRebooted(s *story) {
	const node, replicas = "node-a", 3
	s.deploy(replicas, on(node))
	serials := map[string]string{}
	for _, pod := range s.readyPods(replicas) {
		serials[string(pod.UID)] = s.leaf(pod.Name).SerialNumber.Text(16)
	}
	gone := s.ofEachKind(node)
	s.rebooted(node, func() error {
		s.force(gone)
		return nil
	})
	s.until("every pod to be started again", func(context.Context) error {
		for _, pod := range s.readyPods(replicas) {
			if pod.Status.ContainerStatuses[0].RestartCount == 0 {
				return fmt.Errorf("pod %s was not", pod.Name)
			}
		}
		return nil
	})
	for _, pod := range s.readyPods(replicas) {
		serial, known := serials[string(pod.UID)]
		if !known {
			s.Errorf("pod %s is a new pod", pod.Name)
		}
		if s.leaf(pod.Name).SerialNumber.Text(16) == serial {
			s.Errorf("pod %s has the certificate from before the reboot", pod.Name)
		}
	}
	s.nothingOf(gone...)
	s.until("the driver to be ready", driverReady(node))
}
