package example

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// A Node is a kubelet's root with the node plugin on it.
type Node struct {
	root    string
	kubelet *kubelet.Kubelet
	driver  kubelet.Driver
}

// NewNode starts the node plugin, and ends it with the test.
func NewNode(t *testing.T) *Node {
	t.Helper()
	root, err := os.MkdirTemp("", "node-") // The test's own name would make a socket's path too long.
	if err != nil {
		t.Fatal(err)
	}
	k, err := kubelet.New(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kubelet.CleanUp(root) })
	mayfly := filepath.Join(Repository(t), "bin", "mayfly")
	Start(t, exec.Command(mayfly, "node", "--node-name=a", "--signer=local", "--kubelet-root="+root, "--log-format=text"), syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d, err := k.Register(ctx, "csi.mayfly.dev")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return &Node{root: root, kubelet: k, driver: d}
}

// Life is what the tests ask for instead of an hour, the one attribute that they change: a renewal comes after some ten seconds.
const Life = 15 * time.Second

// Publish publishes a CSI volume of a pod, and is the directory that the pod sees.
func (n *Node) Publish(t *testing.T, pod Pod, v corev1.Volume) string {
	t.Helper()
	asked := kubelet.Volume{
		Pod:        kubelet.Pod{Namespace: "default", Name: pod.Name + "-0", UID: "uid-of-" + pod.Name, ServiceAccount: pod.Identity()},
		Name:       v.Name,
		Attributes: maps.Clone(v.CSI.VolumeAttributes),
		Writable:   v.CSI.ReadOnly == nil || !*v.CSI.ReadOnly,
	}
	asked.Attributes["csi.mayfly.dev/duration"] = Life.String()
	if group := pod.group(); group != nil {
		asked.FSGroup = strconv.FormatInt(*group, 10)
	}
	target, err := n.kubelet.Publish(t.Context(), n.driver, asked)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.kubelet.Unpublish(context.Background(), n.driver, asked); err != nil {
			t.Error(err)
		}
	})
	return target
}

func (p Pod) group() *int64 {
	if p.Spec.SecurityContext == nil {
		return nil
	}
	return p.Spec.SecurityContext.FSGroup
}

// Start starts a program, and ends it with the test, by a signal. What it prints is shown if the test fails.
func Start(t *testing.T, cmd *exec.Cmd, end os.Signal) *os.Process {
	t.Helper()
	out, err := os.CreateTemp("", "out-") // A file, for programs that open /dev/stdout as their own user.
	if err == nil {
		err = out.Chmod(0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(end)
		timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		_ = cmd.Wait() // What it says of a signal does not matter.
		if text, err := os.ReadFile(out.Name()); t.Failed() && err == nil {
			t.Logf("%s:\n%s", cmd.Args[0], bytes.TrimSpace(text))
		}
		_ = out.Close()
		_ = os.Remove(out.Name())
	})
	return cmd.Process
}

// Until tries until there is no error.
func Until(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s: %v", what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Renewed waits until the volume has other files than it had.
func Renewed(t *testing.T, volume string) {
	t.Helper()
	before, err := os.Readlink(filepath.Join(volume, "..data"))
	if err != nil {
		t.Fatal(err)
	}
	Until(t, "the renewal", func() error {
		now, err := os.Readlink(filepath.Join(volume, "..data"))
		if err == nil && now == before {
			err = fmt.Errorf("the files are as they were")
		}
		return err
	})
}

// Roots are the node plugin's CA.
func (n *Node) Roots(t *testing.T) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(n.root, "plugins", "csi.mayfly.dev", "local-ca", "tls.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return roots
}

// Moved waits for a renewal, and demands that one link was moved for it into the volume's directory (inotify(7), IN_MOVED_TO), which is what
// programs watch for.
func Moved(t *testing.T, volume string) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	watch := os.NewFile(uintptr(fd), "inotify")
	defer watch.Close()
	if _, err := unix.InotifyAddWatch(fd, volume, unix.IN_MOVED_TO); err != nil {
		t.Fatal(err)
	}
	if err := watch.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	event := make([]byte, unix.SizeofInotifyEvent+unix.NAME_MAX+1)
	n, err := watch.Read(event)
	if err != nil {
		t.Fatal(err)
	}
	if name := string(bytes.TrimRight(event[unix.SizeofInotifyEvent:n], "\x00")); name != "..data" {
		t.Errorf("%q was moved", name)
	}
}
