package cluster_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/test/cluster"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

const driverName = "csi.mayfly.dev"

// A node is a kubelet's root with the real binary on it, as a process that can be killed.
type node struct {
	*kubelet.Kubelet
	t          *testing.T
	kubeconfig string
	namespace  string
	args       []string
	env        []string // Besides this process's.

	process *exec.Cmd
	exited  chan struct{}
	driver  kubelet.Driver
	log     text
}

// A text is a file that a process writes itself: what it wrote before it answered a call is read after the answer.
type text struct{ *os.File }

func newText(t *testing.T) text {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(t.TempDir(), "text"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return text{file}
}

func (l text) String() string {
	content, err := os.ReadFile(l.Name())
	if err != nil {
		return err.Error()
	}
	return string(content)
}

// newNode starts the binary against the shared control plane, with the rights of the manifests' ClusterRole and no other.
func newNode(t *testing.T, namespace string, args ...string) *node {
	t.Helper()
	n := idleNode(t, namespace, args...)
	n.start()
	return n
}

// idleNode is a node without a node plugin, until it is started.
func idleNode(t *testing.T, namespace string, args ...string) *node {
	t.Helper()
	root, err := os.MkdirTemp("", "node-")
	if err != nil {
		t.Fatal(err)
	}
	k, err := kubelet.New(root)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Kubelet: k, t: t, kubeconfig: shared.plugin, namespace: namespace, args: args, log: newText(t)}
	t.Cleanup(n.cleanUp)
	return n
}

// arguments are the command line of the node plugin.
func (n *node) arguments() []string {
	return append([]string{"node", "--node-name", "node-a", "--kubelet-root", n.Root, "--kubeconfig", n.kubeconfig, "--log-format", "text"}, n.args...)
}

func (n *node) start() {
	n.t.Helper()
	n.process = exec.Command(shared.binary, n.arguments()...)
	n.process.Stderr, n.process.Env = n.log.File, append(os.Environ(), n.env...)
	if err := n.process.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.exited = make(chan struct{})
	go func() {
		defer close(n.exited)
		_ = n.process.Wait()
	}()
	n.register(n.exited)
}

// register waits until the node plugin has registered, or has exited.
func (n *node) register(exited <-chan struct{}) {
	n.t.Helper()
	if err := n.tryRegister(exited); err != nil {
		n.t.Fatalf("%v\n%s", err, n.log)
	}
}

func (n *node) tryRegister(exited <-chan struct{}) (err error) {
	ctx, cancel := context.WithTimeout(n.t.Context(), 60*time.Second)
	defer cancel()
	go func() {
		select {
		case <-exited:
			cancel()
		case <-ctx.Done():
		}
	}()
	n.driver, err = n.Register(ctx, driverName)
	return err
}

// hangUp closes the connection to the node plugin, if there is one.
func (n *node) hangUp() {
	if n.driver.ClientConn != nil {
		_ = n.driver.Close()
	}
}

// end ends the process by a signal, and waits for it.
func (n *node) end(signal os.Signal) {
	n.t.Helper()
	n.hangUp()
	_ = n.process.Process.Signal(signal)
	<-n.exited
}

func (n *node) cleanUp() {
	if n.process != nil {
		n.end(syscall.SIGTERM)
	}
	if err := kubelet.CleanUp(n.Root); err != nil {
		n.t.Error(err)
	}
	if n.t.Failed() {
		n.t.Logf("log of the node plugin:\n%s", n.log)
	}
}

// mounts are the mount points below the kubelet's root, but for the state directory's own.
func (n *node) mounts() (paths []string) {
	n.t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		n.t.Error(err)
	}
	for line := range strings.Lines(string(text)) {
		if path := strings.Fields(line)[4]; strings.HasPrefix(path, n.Root+"/") && path != n.state() {
			paths = append(paths, path)
		}
	}
	return paths
}

// pod makes a pod object with a volume that asks for a certificate.
func (n *node) pod(name string, attributes ...string) kubelet.Volume {
	n.t.Helper()
	uid, err := shared.Pod(n.t.Context(), n.namespace, name)
	if err != nil {
		n.t.Fatal(err)
	}
	v := kubelet.Volume{
		Pod:        kubelet.Pod{Namespace: n.namespace, Name: name, UID: uid, ServiceAccount: "default"},
		Attributes: map[string]string{"csi.mayfly.dev/issuer-name": "ca", "csi.mayfly.dev/dns-names": "${POD_NAME}.${POD_NAMESPACE}.svc"},
	}
	for _, a := range attributes {
		key, value, _ := strings.Cut(a, "=")
		v.Attributes["csi.mayfly.dev/"+key] = value
	}
	return v
}

// refuses calls until the answer is an error with the words, which the kubelet takes for one that may pass.
func (n *node) refuses(v kubelet.Volume, words ...string) {
	n.t.Helper()
	var err error
	defer func() {
		if n.t.Failed() {
			n.t.Logf("publish: %v\nwant %q", err, words)
		}
	}()
	until(n.t, "the volume is refused", func() bool {
		ctx, cancel := context.WithTimeout(n.t.Context(), 7*time.Second) // The driver answers three seconds before.
		defer cancel()
		if _, err = n.Publish(ctx, n.driver, v); err == nil || kubelet.Final(err) {
			n.t.Fatal("the answer is final")
		}
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(err.Error(), w) })
	})
}

// publish publishes the volume, and tries again as the kubelet does: on a busy machine the first call may end before the certificate is there.
func (n *node) publish(v kubelet.Volume) *x509.Certificate {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 3*time.Minute)
	defer cancel()
	for {
		target, err := n.Publish(ctx, n.driver, v)
		switch {
		case err == nil:
			return n.leaf(target)
		case kubelet.Final(err) || ctx.Err() != nil:
			n.t.Fatalf("publish: %v\n%s", err, n.log)
		}
		time.Sleep(100 * time.Millisecond) // The kubelet waits longer.
	}
}

func (n *node) leaf(target string) *x509.Certificate {
	n.t.Helper()
	var pair tls.Certificate
	err := kubelet.ReadSet(target, func(dir string) (err error) {
		pair, err = tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return pair.Leaf
}

func (n *node) unpublish(v kubelet.Volume) {
	n.t.Helper()
	if err := n.Unpublish(n.t.Context(), n.driver, v); err != nil {
		n.t.Fatalf("unpublish: %v", err)
	}
}

// requests are the CertificateRequests of the namespace.
func (n *node) requests() []cmapi.CertificateRequest {
	n.t.Helper()
	list, err := shared.CertManager.CertmanagerV1().CertificateRequests(n.namespace).List(n.t.Context(), metav1.ListOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	return list.Items
}

// until waits for a condition, which is looked at often.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute) // Longer than the first backoff of a volume.
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// namespace makes a namespace of the test's own.
func namespace(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("t%d", time.Now().UnixNano())
	if _, err := shared.Namespace(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return name
}

// A fixture is what all tests share.
type fixture struct {
	*cluster.Cluster
	binary     string // The node plugin.
	controller string // mayfly-controller, of the test of it.

	plugin, podPlugin string // Kubeconfigs with the rights of the manifests, and with those of options/token-request.
}

func write(t *testing.T, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
