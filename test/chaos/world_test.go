package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/mount"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/certmanager"
	"github.com/mayfly-csi/mayfly/signer/spec"
	"github.com/mayfly-csi/mayfly/test/alarm"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

const name = "csi.mayfly.dev"

// A world is a node with its kubelet, an API server and issuers, and node plugins one after another. Its time is that of
// a bubble (testing/synctest); dates go by its wall clock, which is set now and then. Steps and oracle run in one
// goroutine; mu guards what others see of it, too.
type world struct {
	t    *testing.T
	rand *rand.Rand
	kubelet.Kubelet
	api       *apiServer
	pods      *pods
	corporate *corporate
	clock     *alarm.Clock // The wall clock of all.
	log       *tail
	open      *sync.RWMutex // Locked for reading, but when no file can be opened. All worlds of the process share it.

	slots   []*slot
	buried  []burial
	steps   []string // What was done, with its time.
	failed  bool
	turned  time.Time  // When the default issuer was changed.
	jumped  time.Time  // When the wall clock was set.
	uids    int        // Of the pods so far.
	running *process   // It serves, or is about to.
	next    *process   // It waits for the end of the other one.
	ended   []*process // They have been told to stop.

	mu     sync.Mutex // Guards what follows, and calls and processes.
	sent   []sent
	latest time.Time // What the wall clock showed when it was set back, the latest of all.
}

// A burial is a pod that is gone.
type burial struct {
	slot      slot
	at        time.Time
	abandoned bool // Its volume was not unpublished.
}

// A slot is a place for a pod with a volume.
type slot struct {
	kubelet.Volume
	exists  bool // The kubelet has the pod.
	came    time.Time
	acked   bool // The pod was told that its volume is there.
	call    *call
	spoiled bool // Others have changed its mounts since the last call that succeeded.
	full    bool // Its tmpfs.
	blind   bool // Its record could not be written, and may not have what the driver knows. The next pair ends that.
	strange bool // Its record was replaced: an attempt may have been lost.

	set     *set      // The files in force, as they were last seen.
	attempt string    // The attempt under way that has not failed yet.
	since   time.Time // When it was first seen.
}

// A call is one of the kubelet's that is under way.
type call struct {
	kind   string
	began  time.Time
	cancel context.CancelFunc
	err    error
	ended  time.Time
}

// A process is a node plugin.
type process struct {
	*driver.Driver
	metrics *prometheus.Registry
	issuer  string // The default issuer.
	client  kubelet.Driver
	stop    context.CancelFunc
	done    chan error

	told   time.Time // When it was told to stop.
	serves time.Time // Since when it serves.
}

// newWorld makes a world in which nothing runs. Its time is the real one, so that of files fits.
func newWorld(t *testing.T, seed uint64, root string, now time.Time, open *sync.RWMutex) *world {
	time.Sleep(time.Until(now))
	w := &world{
		t: t, rand: rand.New(rand.NewPCG(seed, 0)), Kubelet: kubelet.Kubelet{Root: root}, pods: &pods{}, log: &tail{},
		open: open, corporate: &corporate{changed: map[int]func(){}}, clock: &alarm.Clock{},
	}
	w.api = &apiServer{seed: seed, pki: newPKI(w.clock), state: fine, log: w.log, moods: map[string]mood{}, requests: map[string]*request{}, calls: map[string]int{}, asked: map[string][]time.Time{}}
	w.corporate.set(w.api.pki.root)
	w.api.kill = w.freeze
	for range 12 {
		w.slots = append(w.slots, &slot{})
	}
	return w
}

func (w *world) stateDir() string { return filepath.Join(w.Root, "plugins", name, "volumes") }

func (w *world) dir(s *slot) string { return filepath.Join(w.stateDir(), s.ID()) }

func (w *world) chance(percent int) bool { return w.rand.IntN(100) < percent }

func (w *world) span(d time.Duration) time.Duration { return time.Duration(w.rand.Int64N(int64(d))) }

// start starts a node plugin, perhaps with other flags than the last one. It serves once others have given the state
// directory free.
func (w *world) start() *process {
	p := &process{metrics: prometheus.NewRegistry(), done: make(chan error, 1), issuer: "ca"}
	if w.chance(10) {
		p.issuer = "other"
	}
	cm, err := certmanager.New(&rest.Config{Host: "http://api", Transport: w.api})
	w.must(err)
	p.Driver, err = driver.NewWithClocks(driver.Config{
		Names: []driver.Name{{Name: name}}, Version: "test", NodeName: "node-a", KubeletRoot: w.Root, StateDir: w.stateDir(),
		Signer: cm, KeepRequests: new(w.rand.IntN(3)), Defaults: volume.Defaults{Defaults: spec.Defaults{IssuerName: p.issuer}, TrustFiles: []string{"corp"}}, Trust: w.corporate,
		RenewalsPerSecond: 100, Pods: w.pods, WatchPods: true, Events: w, Metrics: p.metrics,
		Log: slog.New(slog.NewTextHandler(w.log, nil)),
	}, renew.Clocks{Wall: w.clock.Now, New: func() (renew.Clock, error) { return w.clock.New(), nil }})
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	listener := bufconn.Listen(64 << 10)
	conn, err := grpc.NewClient("passthrough:bubble", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	w.must(err)
	p.client = kubelet.Driver{ClientConn: conn, IdentityClient: csi.NewIdentityClient(conn), NodeClient: csi.NewNodeClient(conn)}
	go func() {
		err := p.Run(ctx)
		conn.Close()
		p.done <- errors.Join(err, listener.Close())
	}()
	go w.serve(p, listener)
	time.Sleep(100 * time.Millisecond)
	return p
}

// serve serves for a process as soon as that is ready, until it is told to stop.
func (w *world) serve(p *process, listener net.Listener) {
	for p.Ready() != nil {
		w.mu.Lock()
		told := p.told
		w.mu.Unlock()
		if !told.IsZero() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.mu.Lock()
	p.serves = time.Now()
	w.mu.Unlock()
	_ = p.Plugins()[0].Server.Serve(listener) // The driver stops it.
}

// servesSince returns since when the node plugin serves; ok is false if none does.
func (w *world) servesSince() (since time.Time, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running == nil || w.running.serves.IsZero() {
		return time.Time{}, false
	}
	return w.running.serves, true
}

// end tells a process to stop.
func (w *world) end(p *process) {
	w.mu.Lock()
	p.told = time.Now()
	w.mu.Unlock()
	p.stop()
	w.ended = append(w.ended, p)
}

// await waits until all processes that were told to stop have. What killed one of them is over then.
func (w *world) await() {
	for _, p := range w.ended {
		err := <-p.done
		if took := time.Since(p.told); err != nil || took > 5*time.Second {
			w.fail("a process stopped after %s: %v", took, err)
		}
	}
	w.ended = nil
	synctest.Wait()
	w.api.mu.Lock()
	w.api.dead, w.api.dying = false, 0
	w.api.mu.Unlock()
	w.remount(0)
}

// quiesce waits until nothing happens without time going by.
func (*world) quiesce() { synctest.Wait() }

// close ends all that runs.
func (w *world) close() {
	w.hangUp()
	for _, p := range []*process{w.running, w.next} {
		if p != nil {
			w.end(p)
		}
	}
	w.await()
	time.Sleep(time.Second) // All that waits looks at the time.
}

// freeze keeps all volumes as they are, as if the process that works on them had been killed. It is called in its midst.
func (w *world) freeze() { w.remount(unix.MS_RDONLY) }

// remount changes the tmpfs of all volumes.
func (w *world) remount(flags uintptr) {
	all, _ := os.ReadDir(w.stateDir())
	for _, e := range all {
		dir := filepath.Join(w.stateDir(), e.Name())
		if mounted, err := mount.Is(dir); err == nil && mounted {
			_ = unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|flags, "")
		}
	}
}

// publish makes a call in the background, as the kubelet does. What it acknowledges is checked at once.
func (w *world) publish(s *slot) {
	v := s.Volume
	w.begin(s, "publish", func(ctx context.Context, p *process) error {
		target, err := w.Publish(ctx, p.client, v)
		if err != nil {
			return err
		}
		set, err := w.load(target)
		if errors.Is(err, unix.EMFILE) {
			return nil
		}
		if err == nil && !set.validAt(w.clock.Now()) {
			err = fmt.Errorf("valid from %s to %s", set.begin, set.end)
		}
		if err != nil {
			return brokenPromise{err}
		}
		return nil
	})
}

// A brokenPromise is the error of a volume that was acknowledged and has no valid pair.
type brokenPromise struct{ error }

// unpublish makes a call in the background.
func (w *world) unpublish(s *slot) {
	v := s.Volume
	w.begin(s, "unpublish", func(ctx context.Context, p *process) error { return w.Unpublish(ctx, p.client, v) })
}

// begin begins a call, if a node plugin serves.
func (w *world) begin(s *slot, kind string, do func(context.Context, *process) error) {
	if _, ok := w.servesSince(); !ok {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &call{kind: kind, began: time.Now(), cancel: cancel}
	s.call = c
	p := w.running
	go func() {
		defer cancel()
		err := do(ctx, p)
		w.mu.Lock()
		defer w.mu.Unlock()
		c.err, c.ended = err, time.Now()
	}()
}

// settle takes note of the calls that have ended.
func (w *world) settle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.slots {
		c := s.call
		if c == nil {
			continue
		}
		over := !c.ended.IsZero()
		if end := renew.Later(c.began.Add(longestCall), c.ended); end.Before(time.Now()) && !over || over && c.ended.Sub(c.began) > longestCall {
			w.fail("%s of %s took %s", c.kind, s.UID, end.Sub(c.began))
		}
		if !over {
			continue
		}
		s.call = nil
		switch {
		case errors.As(c.err, new(brokenPromise)):
			w.fail("%s is acknowledged, and yet: %v", s.UID, c.err)
		case c.err != nil:
			w.note("%s of %s: %v", c.kind, s.UID, c.err)
			if c.kind == "publish" && kubelet.Final(c.err) {
				w.fail("publish of %s: %v is final", s.UID, c.err)
			}
		case c.kind == "publish":
			s.acked, s.spoiled = true, false
		default:
			w.bury(s, c.ended, false)
		}
	}
}

// bury makes the slot one without a pod.
func (w *world) bury(s *slot, at time.Time, abandoned bool) {
	w.buried = append(w.buried, burial{*s, at, abandoned})
	*s = slot{Volume: s.Volume}
}

// fail reports a fault, the first one only.
func (w *world) fail(format string, args ...any) {
	if w.failed {
		return
	}
	w.failed = true
	text := fmt.Sprintf(format, args...)
	w.note("failed: %s", text)
	w.t.Logf("the log, of the pods concerned:\n%s\nthe last steps:\n%s", w.log.about(text), strings.Join(w.steps[max(0, len(w.steps)-200):], "\n"))
	w.t.Error(text)
}

// note notes what is done.
func (w *world) note(format string, args ...any) {
	w.steps = append(w.steps, time.Now().Format("02 15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// must demands that what the world itself does succeeds.
func (w *world) must(err error) {
	if err != nil {
		w.fail("the world: %v", err)
	}
}

// Pods play what the API server knows of pods.
type pods struct {
	mu    sync.Mutex
	renew func(signer.Pod, time.Time, error)
}

// Await implements pod.API.
func (*pods) Await(_ context.Context, _ signer.Pod, ready func(volume.PodState) error) (volume.PodState, error) {
	state := volume.PodState{IPs: []string{"192.0.2.7"}}
	return state, ready(state)
}

// Renewals implements pod.API.
func (p *pods) Renewals(ctx context.Context, renew func(signer.Pod, time.Time, error), _ func(error)) error {
	p.mu.Lock()
	p.renew = renew
	p.mu.Unlock()
	<-ctx.Done()
	p.mu.Lock()
	p.renew = nil
	p.mu.Unlock()
	return nil
}

// RenewAt implements pod.API.
func (*pods) RenewAt(context.Context, signer.Pod) (at time.Time, invalid, err error) {
	return time.Time{}, nil, nil
}

// A tail keeps the end of a log.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() > 4<<20 {
		l.buf.Next(2 << 20)
	}
	return l.buf.Write(p)
}

// about returns the last lines about the pods that a text names by their UIDs, or of any if it names none.
func (l *tail) about(text string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var names []string
	for _, uid := range regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-0*(\d+)\b`).FindAllStringSubmatch(text, -1) {
		names = append(names, `/web-`+uid[2]+`\b`, kubelet.Volume{Pod: kubelet.Pod{UID: uid[0]}}.ID())
	}
	concerned := regexp.MustCompile(strings.Join(names, "|"))
	var lines []string
	for line := range strings.Lines(l.buf.String()) {
		if concerned.MatchString(line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-60):], "")
}
