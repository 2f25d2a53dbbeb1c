package driver_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/mount"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// foreign mounts another driver's volume on the volume's target, as csi-driver does it, and returns a container's view of it.
func (n *node) foreign(v kubelet.Volume) (container string) {
	n.t.Helper()
	data, target := n.t.TempDir(), n.Target(v)
	container = n.t.TempDir()
	_, err := mount.Tmpfs(data, "")
	must(n.t, err, os.WriteFile(filepath.Join(data, "tls.crt"), []byte("another's"), 0o600), os.MkdirAll(target, 0o750),
		mount.Bind(data, target), mount.Bind(data, container))
	n.t.Cleanup(func() { must(n.t, mount.Unmount(container), mount.Unmount(data)) })
	return container
}

func (n *node) anothers(dir string) bool {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "tls.crt"))
	return err == nil && string(text) == "another's"
}

// Another driver had the name, and the pods that it served run on (docs/migrate.md). The kubelet calls this one to unpublish their volumes.
func TestUnpublishOfAVolumeThatAnotherDriverMounted(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	container := n.foreign(v)
	n.unpublish(v)
	n.empty()
	if exists(t, n.Target(v)) {
		t.Error("the target is left")
	}
	if !n.anothers(container) {
		t.Error("what the other driver has is changed")
	}
}

// The kubelet publishes it again: after its own restart, or all the time (requiresRepublish). A container that runs does not see what is mounted then, and
// one that is started again does.
func TestPublishOfAVolumeThatAnotherDriverMounted(t *testing.T) {
	told := make(chan string, 10)
	n := newNode(t, func(c *driver.Config) { c.Events = eventFunc(func(m string) { told <- m }) })
	v := web()
	container := n.foreign(v)
	n.signer.say(refuse(signer.Unavailable, "away"))
	n.fails(v, "away")
	if !n.anothers(n.Target(v)) {
		t.Error("it is unmounted before there is a certificate")
	}
	pair(t, n.publish(v))
	if m := <-told; !strings.Contains(m, "VolumeReplaced: ") {
		t.Errorf("the pod is told: %s", m)
	}
	if !n.anothers(container) {
		t.Error("the container sees another volume")
	}
	n.publish(v)
	must(t, mount.Unmount(n.Target(v)))
	n.publish(v)
	must(t, unix.Mount("", n.Target(v), "", unix.MS_REMOUNT|unix.MS_BIND, "")) // As after a crash amid of it.
	n.publish(v)
	if times := strings.Count(n.log.String(), "a volume is mounted in place of another"); times != 1 {
		t.Errorf("that was so %d times", times)
	}
	n.unpublish(v)
	n.empty()
}

// A volume that the other driver took, and this one does not.
func TestARefusedVolumeThatAnotherDriverMounted(t *testing.T) {
	n := newNode(t, nil)
	v := web("csi.mayfly.dev/dns-name=misspelt")
	n.foreign(v)
	if _, err := n.Publish(t.Context(), n.driver, v); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "dns-name") {
		t.Errorf("got %v", err)
	}
	if !n.anothers(n.Target(v)) {
		t.Error("a container can't start again with what it has")
	}
	n.unpublish(v)
	n.empty()
}
