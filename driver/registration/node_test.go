package registration_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/fsnotify/fsnotify"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/mayfly-csi/mayfly/driver/registration"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const name = "csi.example.org"

// newKubelet returns a kubelet on an empty root, which is not the test's own directory: a test's name would make a
// socket's path too long.
func newKubelet(t *testing.T) *kubelet.Kubelet {
	t.Helper()
	t.Parallel()
	root, err := os.MkdirTemp("", "reg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	k, err := kubelet.New(root)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func endpoint(k *kubelet.Kubelet, name string) string {
	return filepath.Join(k.Root, "plugins", name, "csi.sock")
}

func registrationSocket(k *kubelet.Kubelet, name string) string {
	return filepath.Join(k.Root, "plugins_registry", name+"-reg.sock")
}

// A fakeNode is a CSI node service that answers with its instance's name. probe, if it is there, is what its Probe
// does.
type fakeNode struct {
	csi.UnimplementedNodeServer
	csi.UnimplementedIdentityServer
	instance string
	probe    func(context.Context) error
}

func (n fakeNode) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: n.instance}, nil
}

func (n fakeNode) Probe(ctx context.Context, _ *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, n.probe(ctx)
}

func (n fakeNode) plugin(k *kubelet.Kubelet, name string) registration.Plugin {
	server := grpc.NewServer()
	csi.RegisterNodeServer(server, n)
	csi.RegisterIdentityServer(server, n)
	return registration.Plugin{Name: name, Endpoint: endpoint(k, name), Server: server}
}

// An instance is a running Server.
type instance struct {
	log  *logged
	stop func() error // Ends it, and returns what Serve did.
}

// start starts a Server and waits for the sockets of its plugins.
func start(t *testing.T, k *kubelet.Kubelet, drain time.Duration, plugins ...registration.Plugin) instance {
	t.Helper()
	i := instance{log: &logged{}}
	s := registration.Server{Plugins: plugins, KubeletRoot: k.Root, Drain: drain, Log: slog.New(slog.NewTextHandler(i.log, nil))}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	i.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := i.stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log:\n%s", i.log)
		}
	})
	until(t, "it serves", func() bool { return strings.Count(i.log.String(), "msg=serving") == len(plugins) })
	return i
}

// one starts an instance with one plugin.
func one(t *testing.T, k *kubelet.Kubelet, instanceName string) instance {
	t.Helper()
	return start(t, k, time.Hour, fakeNode{instance: instanceName}.plugin(k, name))
}

// answers demands that the kubelet finds the plugin, and that the named instance answers at both sockets.
func answers(t *testing.T, k *kubelet.Kubelet, i instance, instanceName string) {
	t.Helper()
	before := strings.Count(i.log.String(), "registered with the kubelet")
	d, err := k.Register(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	info, err := d.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	if err != nil || info.GetNodeId() != instanceName {
		t.Errorf("%q answered for %q: %v", info.GetNodeId(), instanceName, err)
	}
	if strings.Count(i.log.String(), "registered with the kubelet") != before+1 {
		t.Errorf("the kubelet registered with another than %q", instanceName)
	}
}

func inode(t *testing.T, path string) os.FileInfo {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func gone(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}

// leave puts a socket in place on which nobody answers.
func leave(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path+".aside")
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := errors.Join(l.Close(), os.Rename(path+".aside", path)); err != nil {
		t.Fatal(err)
	}
}

// probe calls a plugin's Probe, and sends what became of it.
func probe(t *testing.T, k *kubelet.Kubelet, name string) <-chan error {
	t.Helper()
	d, err := kubelet.Connect(endpoint(k, name))
	if err != nil {
		t.Fatal(err)
	}
	called := make(chan error, 1)
	go func() {
		defer d.Close()
		_, err := d.Probe(context.Background(), &csi.ProbeRequest{})
		called <- err
	}()
	return called
}

// draining connects to a plugin, calls begun when its server closes the idle connection, and sends nil then.
func draining(t *testing.T, k *kubelet.Kubelet, name string, begun func()) <-chan error {
	t.Helper()
	d, err := kubelet.Connect(endpoint(k, name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{}); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() {
		defer d.Close()
		d.WaitForStateChange(context.Background(), connectivity.Ready)
		begun()
		closed <- nil
	}()
	return closed
}

// watchNames returns a function that returns the sockets of the plugins that came (+) and went (-) since.
func watchNames(t *testing.T, k *kubelet.Kubelet, names ...string) func() []string {
	t.Helper()
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = watcher.Close() })
	registry := filepath.Join(k.Root, "plugins_registry")
	dirs := []string{registry}
	for _, name := range names {
		dirs = append(dirs, filepath.Dir(endpoint(k, name)))
	}
	for _, dir := range dirs {
		if err := errors.Join(os.MkdirAll(dir, 0o750), watcher.Add(dir)); err != nil {
			t.Fatal(err)
		}
	}
	return func() (seen []string) {
		last := filepath.Join(registry, "last")
		if err := os.WriteFile(last, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for e := range watcher.Events {
			switch {
			case e.Name == last:
				return seen
			case strings.HasPrefix(filepath.Base(e.Name), "."): // Made aside.
			case e.Has(fsnotify.Create):
				seen = append(seen, "+"+e.Name)
			case e.Has(fsnotify.Remove):
				seen = append(seen, "-"+e.Name)
			}
		}
		return nil
	}
}

// until waits for a condition, which is looked at often. It gives up late, for machines that are busy.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// logged is what an instance logs.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
