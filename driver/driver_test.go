package driver_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/local"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const name = "csi.mayfly.dev"

// A node is a kubelet's root with a driver on it, in this process.
type node struct {
	*kubelet.Kubelet
	t      *testing.T
	signer *scripted
	pods   *somePods // nil: the test's Config has others.
	log    *logged
	edit   func(*driver.Config)
	clocks renew.Clocks

	plugin *driver.Driver
	driver kubelet.Driver
	stop   func() error
}

// newNode starts a driver on an empty node, in a test that runs beside others.
func newNode(t *testing.T, edit func(*driver.Config)) *node {
	t.Helper()
	t.Parallel()
	return newNodeAlone(t, edit)
}

// newNodeAlone starts a driver on an empty node. At the test's end nothing may be mounted any more but what the test
// says.
func newNodeAlone(t *testing.T, edit func(*driver.Config)) *node {
	t.Helper()
	root, err := os.MkdirTemp("", "node-") // Not the test's own: its name makes a socket's path too long.
	if err != nil {
		t.Fatal(err)
	}
	k, err := kubelet.New(root)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := local.Open(filepath.Join(k.Root, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Kubelet: k, t: t, signer: &scripted{ca: ca}, log: &logged{}, edit: edit}
	n.start()
	t.Cleanup(n.cleanUp)
	return n
}

func (n *node) config() driver.Config {
	config := driver.Config{
		Names: []driver.Name{{Name: name, Endpoint: filepath.Join(n.Root, "plugins", name, "csi.sock")}}, Version: "test", NodeName: "node-a",
		KubeletRoot:       n.Root,
		StateDir:          n.stateDir(),
		Signer:            n.signer,
		Pods:              newPods(),
		WatchPods:         true,
		RenewalsPerSecond: 1000,
		Log:               slog.New(slog.NewTextHandler(n.log, nil)),
	}
	if n.edit != nil {
		n.edit(&config)
	}
	n.pods, _ = config.Pods.(*somePods)
	return config
}

func (n *node) stateDir() string { return filepath.Join(n.Root, "plugins", name, "volumes") }

// start starts the driver, for the first time or after stop.
func (n *node) start() {
	n.t.Helper()
	d, err := driver.NewWithClocks(n.config(), n.clocks)
	if err != nil {
		n.t.Fatal(err)
	}
	n.plugin = d
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		err := d.Run(ctx)
		cancel()
		done <- err
	}()
	if n.driver, err = n.Register(ctx, name); err != nil {
		cancel()
		n.t.Fatal(err, <-done)
	}
	connection := n.driver
	n.stop = sync.OnceValue(func() error {
		cancel()
		return errors.Join(<-done, connection.Close())
	})
}

func (n *node) restart() {
	n.t.Helper()
	if err := n.stop(); err != nil {
		n.t.Fatal(err)
	}
	n.start()
}

// ofNoPod matches lines of the log about a volume whose pod is not known: its record is damaged, or there is no such
// volume.
var ofNoPod = regexp.MustCompile(`not renewed until the kubelet publishes it again|code=NotFound|UnpublishVolume code=InvalidArgument|` +
	`UnpublishVolume code=Unavailable error="remove the volume's directory: .*: input/output error"`)

func (n *node) cleanUp() {
	if err := n.stop(); err != nil {
		n.t.Error(err)
	}
	if err := kubelet.CleanUp(n.Root); err != nil {
		n.t.Error(err)
	}
	for line := range strings.Lines(n.log.String()) {
		if strings.Contains(line, " volume=") && !strings.Contains(line, " pod=") && !ofNoPod.MatchString(line) {
			n.t.Errorf("a line of the log about a volume does not name its pod: %s", line)
		}
	}
	if n.t.Failed() {
		n.t.Logf("log of the driver:\n%s", n.log)
	}
}

// mounts are the mount points below the node's root, the deepest first, but for those of state directories.
func (n *node) mounts() (paths []string) {
	n.t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		path := strings.Fields(line)[4]
		if state, _ := filepath.Match(filepath.Join(n.Root, "plugins", "*", "volumes"), path); state {
			continue
		}
		if strings.HasPrefix(path, n.Root+"/") {
			paths = append([]string{path}, paths...)
		}
	}
	return paths
}

// empty demands that nothing is mounted and no volume is left.
func (n *node) empty() {
	n.t.Helper()
	if paths := n.mounts(); len(paths) > 0 {
		n.t.Errorf("mounted: %v", paths)
	}
	if left, err := os.ReadDir(n.stateDir()); err != nil || len(left) > 0 {
		n.t.Errorf("left in the state directory: %v, %v", left, err)
	}
}

// publish demands success.
func (n *node) publish(v kubelet.Volume) string {
	n.t.Helper()
	target, err := n.Publish(n.t.Context(), n.driver, v)
	if err != nil {
		n.t.Fatalf("publish: %v", err)
	}
	return target
}

func (n *node) unpublish(v kubelet.Volume) {
	n.t.Helper()
	if err := n.Unpublish(n.t.Context(), n.driver, v); err != nil {
		n.t.Fatalf("unpublish: %v", err)
	}
}

// renew makes the renewal of a volume due that has its pair, as an annotation of its pod does.
func (n *node) renew(v kubelet.Volume) {
	n.t.Helper()
	until(n.t, "the attempt before is over", func() bool { return n.record(v).Attempt == "" })
	n.pods.annotated(n.t, v.Pod, n.record(v).IssuedAt.Add(time.Nanosecond), nil)
}

// inState is a path in the volume's tmpfs.
func (n *node) inState(v kubelet.Volume, name string) string {
	return filepath.Join(n.stateDir(), v.ID(), name)
}

// web is a volume with a certificate of a quarter of an hour; edits change its attributes.
func web(edits ...string) kubelet.Volume {
	v := kubelet.Volume{
		Pod: kubelet.Pod{Namespace: "shop", Name: "web-0", UID: "3b2f6a5e-0001-4c5e-9d3e-000000000001", ServiceAccount: "web"},
		Attributes: map[string]string{
			"csi.mayfly.dev/issuer-name": "ca", "csi.mayfly.dev/dns-names": "${POD_NAME}.${POD_NAMESPACE}.svc", "csi.mayfly.dev/duration": "15m",
			"csi.mayfly.dev/layout": "pem,bundle",
		},
	}
	for _, e := range edits {
		key, value, _ := strings.Cut(e, "=")
		v.Attributes[key] = value
	}
	return v
}

// pair loads and checks what the pod reads.
func pair(t *testing.T, target string) *x509.Certificate {
	t.Helper()
	leaf, err := kubelet.Load(target)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
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

// scripted is the local signer with a script of answers before it.
type scripted struct {
	ca *local.Signer

	mu        sync.Mutex
	script    []answer
	always    answer // When the script is over; nil: the CA.
	requests  []signer.Request
	forgotten []string
}

// An answer is what a signer does, given the one that it stands before.
type answer func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error)

func (s *scripted) Sign(ctx context.Context, req signer.Request) (signer.Issued, error) {
	s.mu.Lock()
	s.requests = append(s.requests, req)
	next := s.always
	if len(s.script) > 0 {
		next, s.script = s.script[0], s.script[1:]
	}
	s.mu.Unlock()
	if next == nil {
		return s.ca.Sign(ctx, req)
	}
	return next(ctx, req, s.ca)
}

func (s *scripted) Forget(_ context.Context, attempt signer.Attempt) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgotten = append(s.forgotten, attempt.ID)
	return nil
}

func (s *scripted) say(answers ...answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = answers
}

// from says what is answered once the script is over; nil: what the CA says.
func (s *scripted) from(always answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.always = always
}

func (s *scripted) asked() []signer.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]signer.Request(nil), s.requests...)
}

func (s *scripted) forgot() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.forgotten...)
}

// refuse is an answer with an error.
func refuse(kind signer.Kind, reason string) answer {
	return func(context.Context, signer.Request, signer.Signer) (signer.Issued, error) {
		return signer.Issued{}, signer.Errorf(kind, "%s", reason)
	}
}

// hang is an answer that takes until ctx ends.
func hang(ctx context.Context, _ signer.Request, _ signer.Signer) (signer.Issued, error) {
	<-ctx.Done()
	return signer.Issued{}, signer.Errorf(signer.NotYet, "still waiting for approval")
}

// hangUp makes a publish call whose caller goes away while the signer has the request.
func (n *node) hangUp(v kubelet.Volume) {
	n.t.Helper()
	ctx, cancel := context.WithCancel(n.t.Context())
	n.signer.say(abandon(cancel))
	if _, err := n.Publish(ctx, n.driver, v); err == nil {
		n.t.Fatal("published")
	}
}

// abandon is an answer that takes longer than who called has patience: cancel ends that call.
func abandon(cancel context.CancelFunc) answer {
	return func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		cancel()
		return hang(ctx, req, ca)
	}
}

// logged is what a driver logs.
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

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}
