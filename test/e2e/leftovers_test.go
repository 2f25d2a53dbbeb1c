package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// An inventory counts what can leak, by its name.
type inventory map[string]int

// takeInventory counts after every driver has served a pod: from then on it has its connections.
func takeInventory(t *testing.T) inventory {
	t.Helper()
	useEveryDriver(t)
	var found inventory
	err := eventually(t.Context(), "the inventory", func(ctx context.Context) (err error) {
		found, _, err = count(ctx)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func useEveryDriver(t *testing.T) {
	t.Helper()
	t.Run("a pod on every node", func(t *testing.T) {
		s := begin(t)
		for _, node := range shared.Nodes {
			s.start(pod(node, on(node)))
		}
	})
}

// backWhereItWas demands that there is no more of anything than before. Idle connections of the driver may take their time.
func backWhereItWas(t *testing.T, before inventory) {
	useEveryDriver(t)
	err := eventually(t.Context(), "everything to be back where it was", func(ctx context.Context) error {
		after, seen, err := count(ctx)
		if err != nil {
			return err
		}
		var more []string
		for name, n := range after {
			if n > before[name] {
				more = append(more, fmt.Sprintf("%d %s, and %d before", n, name, before[name]))
			}
		}
		if len(more) > 0 {
			return errors.New(strings.Join(append(more, seen...), "\n"))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
		keepLogs(context.Background(), t)
	}
	t.Logf("before the stories: %v", before)
}

// count takes the inventory of all nodes. The mounts of the kubelet and the driver, which it counts, are listed, too.
func count(ctx context.Context) (found inventory, mounted []string, err error) {
	requests, err := shared.CertManager.CertmanagerV1().CertificateRequests(corev1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, err
	}
	found = inventory{"CertificateRequests": len(requests.Items)}
	for _, node := range shared.Nodes {
		all, err := mounts(ctx, node)
		if err != nil {
			return nil, nil, err
		}
		// A node begins with a copy of the machine's mounts: those of programs beside it lie elsewhere.
		ours := slices.DeleteFunc(all, func(line string) bool { return !strings.Contains(line, " /var/lib/kubelet/") })
		for _, line := range ours {
			mounted = append(mounted, node+": "+line)
		}
		of, err := countNode(ctx, node)
		if err != nil {
			return nil, nil, fmt.Errorf("count what %s has: %w", node, err)
		}
		of["mounts on "+node] = len(ours)
		maps.Copy(found, of)
	}
	return found, mounted, nil
}

func countNode(ctx context.Context, node string) (inventory, error) {
	volumes, err := volumes(ctx, node)
	if err != nil {
		return nil, err
	}
	state, err := shared.Node(node).Command(ctx, "ls", "/var/lib/kubelet/plugins/csi.mayfly.dev/volumes").Output()
	if err != nil {
		return nil, fmt.Errorf("list the state directory: %w", err)
	}
	metrics, err := metrics(ctx, node)
	if err != nil {
		return nil, err
	}
	found := inventory{
		"volumes on " + node:           len(volumes),
		"state directories on " + node: len(strings.Fields(string(state))),
	}
	for _, name := range []string{"go_goroutines", "process_open_fds", "mayfly_volumes"} {
		value, ok := metrics[name]
		if !ok {
			return nil, fmt.Errorf("the driver has no metric %s", name)
		}
		found[name+" on "+node] = value
	}
	return found, nil
}

// metrics are the gauges of the driver on a node.
func metrics(ctx context.Context, node string) (map[string]int, error) {
	pod, err := driverPod(ctx, node)
	if err != nil {
		return nil, err
	}
	text, err := shared.Kubectl(ctx, "get", "--raw", "/api/v1/namespaces/"+mayfly+"/pods/"+pod.Name+":9402/proxy/metrics")
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	values := map[string]int{}
	for name, family := range families {
		if gauge := family.GetMetric()[0].GetGauge(); gauge != nil {
			values[name] = int(gauge.GetValue())
		}
	}
	return values, nil
}

// nothingLeft demands that with the pods all of their volumes go.
func (s *story) nothingLeft() {
	s.Helper()
	s.must("delete", "deployment,daemonset", "--all", "--cascade=foreground")
	s.requested(0)
	for _, node := range shared.Nodes {
		s.until("the volumes on "+node+" to go", func(ctx context.Context) error {
			found, err := countNode(ctx, node)
			if err != nil {
				return err
			}
			lines, err := mounts(ctx, node)
			left := slices.DeleteFunc(lines, func(l string) bool { // As above, of this node alone.
				volume := strings.Contains(l, " /var/lib/kubelet/") && strings.Contains(l, "kubernetes.io~csi")
				return !volume && !strings.Contains(l, csiDriverData)
			})
			if found["mayfly_volumes on "+node] > 0 || found["state directories on "+node] > 0 || len(left) > 0 {
				return fmt.Errorf("there are %v, %q", found, left)
			}
			return err
		})
	}
}
