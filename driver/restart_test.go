package driver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/mount"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

type driverConfig = driver.Config

// eventFunc hears events as one text.
type eventFunc func(message string)

func (f eventFunc) Send(_ context.Context, pod signer.Pod, e event.Event) error {
	f(fmt.Sprintf("%s/%s %s: %s", pod.Namespace, pod.Name, e.Reason, e.Message))
	return nil
}

func TestRotation(t *testing.T) {
	n := newNode(t, nil)
	v := web("csi.mayfly.dev/duration=15s")
	target := n.publish(v)
	before := pair(t, target)
	for range 2 {
		begin := time.Now()
		until(t, "a rotation", func() bool { return !pair(t, target).Equal(before) })
		after := pair(t, target)
		if before.NotAfter.Before(time.Now()) {
			t.Errorf("rotated %s after the end", time.Since(before.NotAfter))
		}
		if time.Since(begin) > 15*time.Second || bytes.Equal(before.RawSubjectPublicKeyInfo, after.RawSubjectPublicKeyInfo) {
			t.Errorf("after %s; a new key at every renewal", time.Since(begin))
		}
		before = after
	}
}

// A program that watches the file itself, as Istio's agents before 1.29 do, hears of another at once.
func TestTheFilesBeforeGoAtOnce(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	target := n.publish(v)
	first, err := filepath.EvalSymlinks(filepath.Join(target, "tls.crt"))
	if err != nil {
		t.Fatal(err)
	}
	before := pair(t, target)
	n.renew(v)
	until(t, "the files before are removed", func() bool { return !exists(t, first) })
	if pair(t, target).Equal(before) {
		t.Error("they were removed before there were others")
	}
}

func TestHeldVolumesAreRotatedAfterARestart(t *testing.T) {
	n := newNode(t, nil)
	v := web("csi.mayfly.dev/duration=3s")
	target := n.publish(v)
	before := pair(t, target)
	n.restart()
	until(t, "a rotation", func() bool { return !pair(t, target).Equal(before) })
	n.publish(v)
	n.unpublish(v)
	n.empty()
}

func TestThePendingAttemptGoesOnAfterARestart(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	n.hangUp(v)
	n.restart()
	pair(t, n.publish(v))
	asked := n.signer.asked()
	first, last := asked[0], asked[len(asked)-1]
	if first.Attempt != last.Attempt || !bytes.Equal(first.CSR, last.CSR) {
		t.Error("another attempt")
	}
}

func TestKeepRequests(t *testing.T) {
	n := newNode(t, func(c *driver.Config) { c.KeepRequests = new(2) })
	v := web()
	target := n.publish(v)
	for range 4 {
		before := pair(t, target)
		n.renew(v)
		until(t, "another request", func() bool { return !pair(t, target).Equal(before) })
	}
	until(t, "the first is forgotten", func() bool { return len(n.signer.forgot()) >= 2 })
	asked, forgot := n.signer.asked(), n.signer.forgot()
	var old []string
	for _, r := range asked[:len(asked)-2] {
		old = append(old, r.Attempt.ID)
	}
	for i, id := range forgot { // The order is that in which the deletions end.
		if !slices.Contains(old, id) || slices.Contains(forgot[:i], id) {
			t.Errorf("asked %d, forgot %v", len(asked), forgot)
		}
	}
}

func TestAVolumeWhosePodIsGoneIsRemoved(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name string
		live bool // The driver runs when the pod goes.
	}{{"at a start", false}, {"when its renewal is due", true}}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			n := newNode(t, nil)
			v := web()
			target := n.publish(v)
			if !row.live {
				if err := n.stop(); err != nil {
					t.Fatal(err)
				}
			}
			gone(t, n, v, target)
			if row.live {
				n.renew(v)
			} else {
				n.start()
			}
			until(t, "the volume is removed", func() bool { return !exists(t, n.inState(v, "")) })
			n.empty()
		})
	}
}

// A driver that does not see the kubelet's directory of pods, as after a mistake in its DaemonSet, keeps all volumes.
func TestADriverThatDoesNotSeeThePods(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	target := n.publish(v)
	before := pair(t, target)
	pods, away := filepath.Join(n.Root, "pods"), filepath.Join(n.Root, "away")
	must(t, n.stop(), os.Rename(pods, away))
	n.start()
	n.renew(v)
	seen := filepath.Join(away, strings.TrimPrefix(target, pods))
	until(t, "its certificate is renewed", func() bool { return !pair(t, seen).Equal(before) })
	must(t, n.stop(), os.Rename(away, pods))
	n.start()
	if !pair(t, target).Equal(pair(t, n.inState(v, "data"))) {
		t.Error("the pod has another certificate")
	}
	n.unpublish(v)
	n.empty()
}

// gone takes a pod away as a kubelet does whose driver did not answer.
func gone(t *testing.T, n *node, v kubelet.Volume, target string) {
	t.Helper()
	unmount(t, target)
	if err := os.RemoveAll(filepath.Join(n.Root, "pods", v.UID)); err != nil {
		t.Fatal(err)
	}
}

// A volume whose pod is gone and that can't be removed is tried again, a minute later.
func TestARemovalThatFailsIsTriedAgain(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	target := n.publish(v)
	must(t, n.stop())
	inside := n.inState(v, "data/inside")
	must(t, os.Mkdir(inside, 0o700), mount.Bind(t.TempDir(), inside))
	gone(t, n, v, target)
	n.start()
	const words = "a volume whose pod is gone can't be removed"
	until(t, "the removal fails", func() bool { return strings.Contains(n.log.String(), words) })
	if r, err := store.ReadRecord(files.Dir(n.inState(v, ""))); err != nil || r.Asked.ID != v.ID() {
		t.Errorf("the record: %+v, %v", r, err)
	}
	unmount(t, inside)
	until(t, "the volume is removed", func() bool { return !exists(t, n.inState(v, "")) })
	n.empty()
}

func TestADamagedRecordIsMadeAnewByTheNextPublish(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func([]byte) []byte{
		"truncated": func(b []byte) []byte { return b[:len(b)/2] },
		"empty":     func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, nil)
			v := web("csi.mayfly.dev/duration=60s") // Its signer backdates: due at once, by what the pair alone says.
			target := n.publish(v)
			before := pair(t, target)
			if err := n.stop(); err != nil {
				t.Fatal(err)
			}
			n.spoil(v, spoil)
			n.signer.from(refuse(signer.Unavailable, "away"))
			n.start()
			if want := "this volume is kept as it is, and not renewed until the kubelet publishes it again"; !strings.Contains(n.log.String(), want) {
				t.Errorf("the log lacks %q", want)
			}
			n.publish(v) // Over a valid pair, whatever the signer does.
			until(t, "a renewal was tried", func() bool { return n.record(v).Failure != nil })
			if !pair(t, target).Equal(before) {
				t.Error("the pair changed")
			}
			if err := n.stop(); err != nil {
				t.Fatal(err)
			}
			n.rest(v)
			n.signer.from(nil)
			n.start()
			until(t, "a rotation", func() bool { return !pair(t, target).Equal(before) })
			n.unpublish(v)
			n.empty()
		})
	}
}

func TestADamagedRecordDoesNotHinderUnpublish(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	n.publish(v)
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n.spoil(v, func([]byte) []byte { return []byte("garbage") })
	n.start()
	n.unpublish(v)
	n.empty()
}

func TestANewerRecordIsTakenUp(t *testing.T) {
	n := newNode(t, nil)
	v := web("csi.mayfly.dev/duration=60s")
	target := n.publish(v)
	before := pair(t, target)
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n.spoil(v, func(b []byte) []byte { return bytes.Replace(b, []byte(`"version":1`), []byte(`"version":7`), 1) })
	n.start()
	if want := "the record is of a newer driver"; !strings.Contains(n.log.String(), want) {
		t.Errorf("the log lacks %q", want)
	}
	// When it was to be renewed is not known, so it is renewed early.
	until(t, "a rotation", func() bool { return !pair(t, target).Equal(before) })
	if r := n.record(v); r.Version != store.RecordVersion || r.Asked.Target != target {
		t.Errorf("record: %+v", r)
	}
	n.unpublish(v)
	n.empty()
}

func (n *node) spoil(v kubelet.Volume, change func([]byte) []byte) {
	n.t.Helper()
	path := n.inState(v, "record.json")
	text, err := os.ReadFile(path)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(path, change(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// Other flags name another state directory, or the driver had another: a pod that runs has the mount that was made for it.
func TestVolumesInAnotherStateDirectoryAreRenewedThere(t *testing.T) {
	moved := false
	n := newNode(t, func(c *driver.Config) {
		if moved {
			c.StateDir = filepath.Join(c.KubeletRoot, "plugins", "other.name", "volumes")
		}
	})
	v := web()
	target := n.publish(v)
	container := t.TempDir()
	if err := mount.Bind(target, container); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mount.Unmount(container) })
	before := pair(t, container)
	moved = true
	n.restart()
	n.publish(v)
	if asked := len(n.signer.asked()); asked != 1 {
		t.Errorf("the signer was asked %d times", asked)
	}
	n.renew(v)
	until(t, "the container sees the renewal", func() bool { return !pair(t, container).Equal(before) })
	n.unpublish(v)
	n.empty()
	if exists(t, n.inState(v, "")) {
		t.Error("the volume's directory is left")
	}
}

// Another driver's volumes are not this one's, wherever they lie.
func TestVolumesOfAnotherDriverInAnotherStateDirectoryAreLeftAlone(t *testing.T) {
	renamed := false
	n := newNode(t, func(c *driver.Config) {
		if renamed {
			c.StateDir = filepath.Join(c.KubeletRoot, "plugins", "other.name", "volumes")
		}
	})
	v := web()
	n.publish(v)
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	r := n.record(v)
	r.Asked.Driver = "csi.example.org"
	if err := store.WriteRecord(files.Dir(n.inState(v, "")), r); err != nil {
		t.Fatal(err)
	}
	renamed = true
	n.start()
	if _, err := n.Health(t.Context(), n.driver, v); err == nil {
		t.Error("the volume is held")
	}
	if !strings.Contains(n.log.String(), "which is none of this driver's names") {
		t.Error("nobody is told")
	}
	r.Asked.Driver = name
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	if err := store.WriteRecord(files.Dir(n.inState(v, "")), r); err != nil {
		t.Fatal(err)
	}
	n.start()
	n.unpublish(v)
}

func TestForeignFilesInTheStateDirectoryAreLeftAlone(t *testing.T) {
	n := newNode(t, nil)
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"a-file", "a-dir/inside", ".hidden/x", "csi-of-ours-once"} {
		full := filepath.Join(n.stateDir(), path)
		if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			t.Fatal(err)
		}
		make := func() error { return os.WriteFile(full, nil, 0o600) }
		if path == "csi-of-ours-once" { // A crash between mkdir and mount.
			make = func() error { return os.Mkdir(full, 0o700) }
		}
		if err := make(); err != nil {
			t.Fatal(err)
		}
	}
	n.start()
	for path, want := range map[string]bool{"a-file": true, "a-dir/inside": true, ".hidden/x": true, "csi-of-ours-once": false} {
		if exists(t, filepath.Join(n.stateDir(), path)) != want {
			t.Errorf("%s: want it there: %v", path, want)
		}
	}
	pair(t, n.publish(web()))
}

// A reboot takes tmpfs and mounts; directories stay.
func TestAfterAReboot(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	target := n.publish(v)
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	unmount(t, target)
	unmount(t, n.inState(v, ""))
	n.start()
	pair(t, n.publish(v))
	if got := len(n.signer.asked()); got != 2 {
		t.Errorf("%d requests", got)
	}
}

// withoutTmpfs returns a volume that waits for its signer, and whose record lies where its tmpfs was mounted.
func withoutTmpfs(t *testing.T) (*node, kubelet.Volume) {
	t.Helper()
	n := newNode(t, nil)
	n.signer.from(refuse(signer.Unavailable, "away"))
	v := web()
	n.fails(v, "away")
	unmount(t, n.inState(v, ""))
	until(t, "the driver writes what it met", func() bool { return exists(t, n.inState(v, "record.json")) })
	if exists(t, n.inState(v, "pending.key")) {
		t.Error("a key is on the disk")
	}
	return n, v
}

// Nothing of a volume stays on a disk, whoever unmounts it.
func TestATmpfsThatSomebodyElseTookAway(t *testing.T) {
	n, v := withoutTmpfs(t)
	n.unpublish(v)
	n.empty()
}

// The next process removes what is left of such a volume: its pod may be gone, and nobody unpublishes it.
func TestATmpfsThatSomebodyElseTookAwayOfAPodThatIsGone(t *testing.T) {
	n, v := withoutTmpfs(t)
	must(t, n.stop())
	gone(t, n, v, n.Target(v))
	n.start()
	n.empty()
}

// The same holds while the signer has a request: its answer comes with the key.
func TestATmpfsThatSomebodyElseTookAwayDuringAnAttempt(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	n.signer.say(func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		unmount(t, n.inState(v, ""))
		return ca.Sign(ctx, req)
	})
	n.fails(v, "was unmounted by another process")
	for _, name := range []string{"pending.key", "data"} {
		if exists(t, n.inState(v, name)) {
			t.Errorf("%s is on a disk", name)
		}
	}
	pair(t, n.publish(v))
	n.unpublish(v)
	n.empty()
}

// A volume that is published again after somebody else has unmounted its tmpfs gets another pair, and until then the pod
// keeps what it has.
func TestAPublishedTmpfsThatSomebodyElseTookAway(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	target := n.publish(v)
	before := pair(t, target)
	unmount(t, n.inState(v, ""))
	n.signer.say(refuse(signer.Unavailable, "away"))
	n.fails(v, "away")
	if !pair(t, target).Equal(before) {
		t.Error("what the pod had is gone")
	}
	if pair(t, n.publish(v)).Equal(before) {
		t.Error("the pair before is in no tmpfs any more")
	}
	n.unpublish(v)
	n.empty()
}

func TestShutdownRemovesItsSocketsAndKeepsTheMounts(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	target := n.publish(v)
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	for _, socket := range n.sockets() {
		if exists(t, socket) {
			t.Errorf("%s is left", socket)
		}
	}
	pair(t, target)
}

func (n *node) sockets() []string {
	return []string{filepath.Join(n.Root, "plugins", name, "csi.sock"), filepath.Join(n.Root, "plugins_registry", name+"-reg.sock")}
}

// A predecessor that is still ending, or another node plugin: two that share a state directory would renew each other's volumes, and take each other's
// sockets away.
func TestASuccessorWaitsForItsPredecessor(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	n.publish(v)
	successor, err := driver.New(n.config())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- successor.Run(ctx) }()
	const words = "waiting for another node plugin with the same state directory to end"
	until(t, "the successor waits", func() bool { return strings.Contains(n.log.String(), words) })
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	for _, socket := range n.sockets() {
		until(t, "the successor serves", func() bool { return exists(t, socket) })
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	n.start()
	pair(t, n.publish(v))
	if asked := len(n.signer.asked()); asked != 1 {
		t.Errorf("the signer was asked %d times", asked)
	}
}

// A node plugin that waits for another is healthy, not ready, and ends without an error when it is stopped.
func TestAStopWhileAPredecessorRuns(t *testing.T) {
	n := newNode(t, nil)
	successor, err := driver.New(n.config())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- successor.Run(ctx) }()
	until(t, "the successor waits", func() bool { return n.log.count("waiting for another node plugin") == 1 })
	if err := successor.Healthy(ctx); err != nil {
		t.Error(err)
	}
	if successor.Ready() == nil {
		t.Error("it is ready")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// forgetting is in the middle of a removal of requests when the driver ends.
type forgetting struct {
	*scripted
	entered chan struct{}
	forget  func()
}

func (f forgetting) Forget(ctx context.Context, _ signer.Attempt) error {
	f.entered <- struct{}{}
	<-ctx.Done()
	f.forget()
	return nil
}

// Nothing writes records any more when another process can have the state directory.
func TestNothingIsWrittenAfterTheUnlock(t *testing.T) {
	var dir string
	f := forgetting{entered: make(chan struct{}, 1), forget: func() {
		time.Sleep(200 * time.Millisecond) // Time enough to unlock.
		fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd) //nolint:errcheck // It was read.
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
			t.Errorf("the state directory is not locked: %v", err)
		}
	}}
	n := newNode(t, func(c *driver.Config) {
		if s, ok := c.Signer.(*scripted); ok {
			f.scripted = s
		}
		c.Signer, dir = f, c.StateDir
	})
	n.publish(web())
	<-f.entered
	if err := n.stop(); err != nil {
		t.Error(err)
	}
}

func unmount(t *testing.T, path string) {
	t.Helper()
	if err := mount.Unmount(path); err != nil {
		t.Fatal(err)
	}
}
