package cluster_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/mount"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// TestKilledAtEveryStep kills the node plugin before each system call that changes a file or a mount or sends something, one process for
// each, starts it again and demands that the kubelet and the pod notice nothing but a delay.
func TestKilledAtEveryStep(t *testing.T) {
	c := crashes{namespace: namespace(t)}
	c.watch(t)
	for _, row := range []struct {
		name    string
		crash   func(*testing.T, death) string
		sending bool
		among   []string
	}{
		{"publish", c.publish, false, []string{"mkdirat", "mount", "write", "renameat", "symlinkat", "fchmodat", "umount2", "unlinkat"}},
		{"publish", c.publish, true, []string{"send"}},
		{"renewal", c.renewal, false, []string{"mkdirat", "write", "renameat", "symlinkat", "fchmodat", "unlinkat"}},
		{"renewal", c.renewal, true, []string{"send"}},
		{"start", c.start, false, []string{"renameat", "umount2", "unlinkat"}},
	} {
		t.Run(fmt.Sprintf("%s, sending: %v", row.name, row.sending), func(t *testing.T) {
			steps := everyStep(t, row.sending, row.crash)
			t.Logf("killed at: %s", strings.Join(steps, " "))
			for _, name := range row.among {
				if !slices.Contains(steps, name) {
					t.Errorf("never killed at %s", name)
				}
			}
		})
	}
}

// everyStep crashes at step 1, 2 and so on until there is no further step, and is their names.
func everyStep(t *testing.T, sending bool, crash func(*testing.T, death) string) (steps []string) {
	for last := false; !last; {
		first := len(steps)
		steps = append(steps, make([]string, atOnce)...)
		t.Run("steps", func(t *testing.T) {
			for i := first; i < len(steps); i++ {
				t.Run(fmt.Sprint(i+1), func(t *testing.T) {
					t.Parallel()
					steps[i] = crash(t, death{sending, i + 1})
				})
			}
		})
		last = t.Failed() || slices.Contains(steps, "")
	}
	return steps
}

// crashes are what a test needs to crash node plugins.
type crashes struct {
	namespace string
	mu        sync.Mutex
	created   map[types.UID]int // Requests ever created, by the pod that owns them.
}

// watch counts the requests as they are created.
func (c *crashes) watch(t *testing.T) {
	c.created = map[types.UID]int{}
	w, err := shared.CertManager.CertmanagerV1().CertificateRequests(c.namespace).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for e := range w.ResultChan() {
			if cr, ok := e.Object.(*cmapi.CertificateRequest); ok && e.Type == watch.Added && len(cr.OwnerReferences) == 1 {
				c.mu.Lock()
				c.created[cr.OwnerReferences[0].UID]++
				c.mu.Unlock()
			}
		}
	})
	t.Cleanup(func() {
		w.Stop()
		done.Wait()
	})
}

// requested demands that n requests were created for the pod.
func (c *crashes) requested(t *testing.T, v kubelet.Volume, n int) {
	t.Helper()
	count := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.created[types.UID(v.UID)]
	}
	until(t, "the request is seen", func() bool { return count() >= n })
	if count() != n {
		t.Errorf("%d requests were created, not %d", count(), n)
	}
}

// publish crashes on the way from the first call to the answer of the last.
func (c *crashes) publish(t *testing.T, d death) string {
	n := idleNode(t, c.namespace)
	v := n.pod(d.pod("publish"))
	plugin := n.trace(death{})
	n.register(plugin.exited)
	plugin.arm(d)
	_, err := n.Publish(t.Context(), n.driver, v)
	published := err == nil
	if published {
		err = n.Unpublish(t.Context(), n.driver, v)
	}
	at := n.kill(plugin)
	if err != nil && at == "" {
		t.Errorf("not killed, and yet: %v", err)
	}
	n.start()
	if !published {
		n.publish(v)
	}
	c.requested(t, v, 1)
	n.unpublish(v)
	n.nothing()
	return at
}

// renewal crashes on the way from one certificate to the next.
func (c *crashes) renewal(t *testing.T, d death) string {
	n := idleNode(t, c.namespace)
	v := n.pod(d.pod("renewal"), "duration=20s") // Renewed every 13 seconds or somewhat sooner.
	plugin := n.trace(death{})
	n.register(plugin.exited)
	before := n.publish(v)
	renewed := func() bool { return !n.leaf(n.Target(v)).Equal(before) }
	until(t, "the request is deleted", func() bool { return n.settled(v) })
	plugin.arm(d)
	until(t, "killed, or renewed without it", func() bool { return plugin.killedAt() != "" || renewed() && n.settled(v) })
	at := n.kill(plugin)
	n.start()
	until(t, "the certificate is renewed", renewed)
	c.requested(t, v, 2)
	n.publish(v)
	n.unpublish(v)
	n.nothing()
	return at
}

// start crashes while the node plugin takes up a volume, and removes one whose pod is gone.
func (c *crashes) start(t *testing.T, d death) string {
	n := newNode(t, c.namespace)
	stays, gone := n.pod(d.pod("stays")), n.pod(d.pod("gone"))
	before := n.publish(stays)
	n.publish(gone)
	n.end(syscall.SIGKILL)
	n.remove(gone)
	plugin := n.trace(d)
	if err := n.tryRegister(plugin.exited); err != nil && plugin.killedAt() == "" {
		t.Errorf("not killed, and yet: %v", err)
	}
	at := n.kill(plugin)
	n.start()
	until(t, "the volume of the pod that is gone is removed", func() bool { return len(n.held()) == 1 })
	if after := n.publish(stays); !after.Equal(before) {
		t.Error("a valid volume got another certificate")
	}
	n.unpublish(stays)
	n.nothing()
	return at
}

// pod is the name of a pod for a death of its own.
func (d death) pod(name string) string { return fmt.Sprintf("%s-%v-%d", name, d.sending, d.n) }

// trace starts the node plugin under a tracer.
func (n *node) trace(d death) *tracer {
	n.t.Helper()
	log, err := os.CreateTemp(n.t.TempDir(), "log-")
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	plugin, err := trace(n.Root, shared.binary, n.arguments(), log, d)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { n.tell(log.Name()) })
	return plugin
}

// tell shows the log of a process of a test that failed.
func (n *node) tell(log string) {
	if text, err := os.ReadFile(log); n.t.Failed() {
		n.t.Logf("log of the process that was killed (%v):\n%s", err, text)
	}
}

// kill ends a traced process, and is the step at which it had been killed before, if it had.
func (n *node) kill(plugin *tracer) string {
	n.t.Helper()
	at := plugin.killedAt()
	n.hangUp()
	if err := plugin.kill(); err != nil {
		n.t.Errorf("kill: %v", err)
	}
	return at
}

// remove takes a pod's directories away, as after a node plugin that was gone for good.
func (n *node) remove(v kubelet.Volume) {
	n.t.Helper()
	if err := mount.Unmount(n.Target(v)); err != nil {
		n.t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(n.Root, "pods", v.UID)); err != nil {
		n.t.Fatal(err)
	}
}

// settled reports whether nothing is under way for the volume, and none of its requests is left to be deleted.
func (n *node) settled(v kubelet.Volume) bool {
	n.t.Helper()
	record, err := store.ReadRecord(files.Dir(filepath.Join(n.state(), v.ID())))
	if err != nil {
		n.t.Fatal(err)
	}
	return record.Attempt == "" && len(record.Finished) == 0
}

// state is the state directory.
func (n *node) state() string { return filepath.Join(n.Root, "plugins", driverName, "volumes") }

// held are the names in the state directory.
func (n *node) held() []os.DirEntry {
	n.t.Helper()
	entries, err := os.ReadDir(n.state())
	if err != nil {
		n.t.Fatal(err)
	}
	return entries
}

// nothing demands that no volume, mount or pod is left.
func (n *node) nothing() {
	n.t.Helper()
	if left := n.held(); len(left) > 0 {
		n.t.Errorf("left in the state directory: %v", left)
	}
	if left := n.mounts(); len(left) > 0 {
		n.t.Errorf("left mounted: %v", left)
	}
	if pods, err := os.ReadDir(filepath.Join(n.Root, "pods")); err != nil || len(pods) > 0 {
		n.t.Errorf("left of pods: %v, %v", pods, err)
	}
}
