package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// startNodes starts the nodes.
func (c *Cluster) startNodes(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for number, name := range c.Nodes {
		group.Go(func() error {
			if err := c.prepareNode(name, byte(number)); err != nil { //nolint:gosec // There are a few.
				return fmt.Errorf("prepare %s: %w", name, err)
			}
			c.tell("starting %s", name)
			if err := c.StartNode(name); err != nil {
				return err
			}
			return c.WaitNode(ctx, name)
		})
	}
	return group.Wait()
}

// prepareNode writes what a node's machine starts from.
func (c *Cluster) prepareNode(name string, number byte) error {
	values := map[string]string{"Name": name, "Dir": c.Dir, "Pods": podSubnet(number).String(), "Cgroup": c.cgroup(name)}
	for file, from := range map[string]string{
		"init.sh": "init.sh", "containerd.toml": "containerd" + c.Versions.Containerd + ".toml", "kubelet.yaml": "kubelet.yaml", "cni/bridge.conflist": "bridge.conflist",
	} {
		if err := c.write(filepath.Join(name, file), from, values); err != nil {
			return err
		}
	}
	kubeconfig, err := c.pki.user(apiURL(), "system:node:"+name, "system:nodes")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.Dir, name, "kubeconfig"), kubeconfig, 0o600); err != nil {
		return err
	}
	dir := filepath.Join("/mnt", name)
	return c.nodes[name].prepare([]service{
		{"containerd", append(ownPrograms(), "containerd", "--config", filepath.Join(dir, "containerd.toml"))},
		kubelet(name, number),
	})
}

// kubelet is that of a node, with more flags.
func kubelet(node string, number byte, flags ...string) service {
	dir := filepath.Join("/mnt", node)
	return service{"kubelet", append([]string{
		"/mnt/bin/kubelet", "--config=" + filepath.Join(dir, "kubelet.yaml"),
		"--kubeconfig=" + filepath.Join(dir, "kubeconfig"), "--node-ip=" + nodeAddress(number).Addr().String(),
	}, flags...)}
}

// SetKubelet gives a node's kubelet these flags and no others, besides those of every node, from its next start on.
func (c *Cluster) SetKubelet(node string, flags ...string) error {
	number := slices.Index(c.Nodes, node)
	if number < 0 {
		return fmt.Errorf("the cluster has no node %s", node)
	}
	return c.nodes[node].install(kubelet(node, byte(number), flags...)) //nolint:gosec // There are a few.
}

// ownPrograms begin a command that prefers the cluster's programs to those of the machine.
func ownPrograms() []string {
	return []string{"/usr/bin/env", "PATH=/mnt/bin:" + os.Getenv("PATH")}
}

// StartNode starts a node's machine, as at first or after a Kill.
func (c *Cluster) StartNode(name string) error {
	for number, n := range c.Nodes {
		if n != name {
			continue
		}
		if err := c.makeCgroup(name); err != nil {
			return fmt.Errorf("make the cgroup of %s: %w", name, err)
		}
		return c.nodes[name].start(func(pid int) error {
			return connectNode(c.ControlPlane.pid(), pid, name, byte(number)) //nolint:gosec // There are a few.
		})
	}
	return fmt.Errorf("the cluster has no node %s", name)
}

// WaitNode waits until the node is ready.
func (c *Cluster) WaitNode(ctx context.Context, name string) error {
	return eventually(ctx, "node "+name, func(ctx context.Context) error {
		node, err := c.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range node.Status.Conditions {
			switch {
			case condition.Type != corev1.NodeReady:
			case condition.Status == corev1.ConditionTrue:
				return nil
			default:
				return fmt.Errorf("it is not ready: %s", condition.Message)
			}
		}
		return errors.New("it has not said whether it is ready")
	})
}

// Import gives the nodes images from archives.
func (c *Cluster) Import(ctx context.Context, archives ...string) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, node := range c.nodes {
		group.Go(func() error {
			for _, archive := range archives {
				if err := node.load(ctx, archive); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// load gives the node's containerd an image.
func (m *Machine) load(ctx context.Context, archive string) error {
	return eventually(ctx, "containerd on "+m.Name, func(ctx context.Context) error {
		out, err := m.Command(ctx, append(ownPrograms(), "ctr", "--namespace=k8s.io", "images", "import", filepath.Join("/mnt/images", filepath.Base(archive)))...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("import %s: %w: %s", archive, err, out)
		}
		return nil
	})
}

// install follows the README: it builds Mayfly's image, gives it to the nodes and applies the manifests.
func (c *Cluster) install(ctx context.Context) error {
	if len(c.Nodes) == 0 {
		return nil
	}
	c.tell("building the images")
	archives, err := c.buildImages(ctx)
	if err != nil {
		return err
	}
	if err := c.Import(ctx, archives...); err != nil {
		return err
	}
	c.tell("installing Mayfly")
	if _, err := c.Kubectl(ctx, "apply", "-f", filepath.Join(repository(), "manifests")); err != nil {
		return err
	}
	return c.WaitMayfly(ctx)
}

// restartMayfly has the node plugins go on with the image that the nodes have now.
func (c *Cluster) restartMayfly(ctx context.Context) error {
	if len(c.Nodes) == 0 {
		return nil
	}
	if _, err := c.Kubectl(ctx, "--namespace=mayfly-system", "rollout", "restart", "daemonset/mayfly"); err != nil {
		return err
	}
	return c.WaitMayfly(ctx)
}

// WaitMayfly waits until every node has the node plugin that its DaemonSet asks for.
func (c *Cluster) WaitMayfly(ctx context.Context) error {
	_, err := c.Kubectl(ctx, "--namespace=mayfly-system", "rollout", "status", "daemonset/mayfly", "--timeout=2m")
	return err
}

// cgroup is the path of a node's cgroup; of all nodes' together for an empty name. It follows from the cluster's directory.
func (c *Cluster) cgroup(node string) string {
	sum := sha256.Sum256([]byte(c.Dir))
	return filepath.Join("/", fmt.Sprintf("mayfly-%x", sum[:4]), node)
}

func (c *Cluster) makeCgroup(node string) error {
	m, err := manager.New(&cgroups.Cgroup{Path: c.cgroup(node), Resources: &cgroups.Resources{}})
	if err != nil {
		return err
	}
	return m.Apply(-1) // Makes it, with no process in it.
}

// removeCgroup removes the cgroups of all nodes.
func (c *Cluster) removeCgroup() error {
	m, err := manager.New(&cgroups.Cgroup{Path: c.cgroup(""), Resources: &cgroups.Resources{}})
	if err != nil {
		return err
	}
	return m.Destroy()
}
