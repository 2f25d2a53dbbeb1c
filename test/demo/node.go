package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// A node is a kubelet's root with the node plugin on it.
type node struct {
	*kubelet.Kubelet
	plugin *exec.Cmd
	exited chan struct{}
	driver kubelet.Driver
}

// startNode starts the binary and registers it, as a kubelet does.
func startNode(ctx context.Context, binary, root string) (*node, error) {
	k, err := kubelet.New(root)
	if err != nil {
		return nil, err
	}
	log := filepath.Join(root, "mayfly.log")
	out, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("make a log: %w", err)
	}
	defer out.Close()
	n := &node{Kubelet: k, exited: make(chan struct{})}
	n.plugin = exec.Command(binary, "node", "--node-name=demo", "--kubelet-root="+root, "--signer=local", "--log-format=text")
	n.plugin.Stderr = out
	n.plugin.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us: the plugin goes last.
	if err := n.plugin.Start(); err != nil {
		return nil, fmt.Errorf("start the node plugin: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	go func() {
		_ = n.plugin.Wait()
		close(n.exited)
		cancel()
	}()
	if n.driver, err = n.Register(ctx, "csi.mayfly.dev"); err != nil {
		text, _ := os.ReadFile(log)
		return nil, errors.Join(fmt.Errorf("register the node plugin: %w\n%s", err, text), n.stop())
	}
	return n, nil
}

// stop ends the node plugin and waits for it.
func (n *node) stop() error {
	var err error
	if n.driver.ClientConn != nil {
		err = n.driver.Close()
	}
	_ = n.plugin.Process.Signal(syscall.SIGTERM)
	<-n.exited
	if code := n.plugin.ProcessState.ExitCode(); code != 0 {
		err = errors.Join(err, fmt.Errorf("the node plugin ended with %s", n.plugin.ProcessState))
	}
	return err
}

// publish gives each pod its volume, of lifetimes that differ a little.
func (n *node) publish(ctx context.Context, o options) (pods []*pod, err error) {
	apps := []string{"shop/cart", "shop/web", "bank/ledger", "bank/audit", "mail/queue", "mail/smtp"}
	for i := range o.pods {
		namespace, app, _ := strings.Cut(apps[i%len(apps)], "/")
		p := &pod{volume: kubelet.Volume{
			Pod: kubelet.Pod{Namespace: namespace, Name: fmt.Sprintf("%s-%d", app, i/len(apps)), ServiceAccount: app, UID: fmt.Sprintf("00000000-0000-4000-8000-%012d", i)},
			Attributes: map[string]string{
				"csi.mayfly.dev/dns-names": "${POD_NAME}.${POD_NAMESPACE}.svc",
				"csi.mayfly.dev/uri-sans":  "spiffe://mayfly.example/ns/${POD_NAMESPACE}/sa/${SERVICE_ACCOUNT_NAME}",
				"csi.mayfly.dev/duration":  (o.duration + time.Duration(i)*o.duration/20).String(),
				"csi.mayfly.dev/layout":    "pem,bundle",
			},
		}}
		if p.target, err = n.Mount(ctx, n.driver, p.volume, nil); err != nil {
			return pods, fmt.Errorf("publish %s: %w", p.name(), err)
		}
		pods = append(pods, p)
	}
	return pods, nil
}

func (n *node) unpublish(pods []*pod) error {
	var errs []error
	for _, p := range pods {
		errs = append(errs, n.Unpublish(context.Background(), n.driver, p.volume))
	}
	return errors.Join(errs...)
}

// unmount removes the tmpfs of the state directory, which stays for the next node plugin.
func (n *node) unmount() error {
	return unix.Unmount(filepath.Join(n.Root, "plugins", "csi.mayfly.dev", "volumes"), 0)
}

// mounts are the mount points below root.
func mounts(root string) (paths []string, err error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if path := strings.Fields(line)[4]; strings.HasPrefix(path, root) {
			paths = append(paths, path)
		}
	}
	return paths, nil
}
