package driver_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/mount"
)

// covered reports whether a tmpfs is mounted on the state directory.
func (n *node) covered() bool {
	n.t.Helper()
	is, err := mount.Is(n.stateDir())
	must(n.t, err)
	return is
}

// An empty state directory gets a tmpfs, which the next process finds with its volumes.
func TestTheStateDirectoryIsCovered(t *testing.T) {
	n := newNode(t, nil)
	if !n.covered() {
		t.Fatal("it is not covered")
	}
	v := web()
	first := pair(t, n.publish(v))
	n.restart()
	if again := pair(t, n.publish(v)); !again.Equal(first) {
		t.Error("the volume was not taken up")
	}
	must(t, n.Unpublish(t.Context(), n.driver, v))
	n.empty()
	n.restart()
	if err := unix.Unmount(n.stateDir(), unix.MNT_DETACH); err != nil || n.covered() {
		t.Errorf("it was covered twice (%v)", err)
	}
}

// The volumes of an earlier version lie in the plain directory: they are not covered, until a start finds none.
func TestVolumesOfBeforeAreNotCovered(t *testing.T) {
	before := ""
	n := newNode(t, func(c *driver.Config) {
		before = filepath.Join(c.StateDir, "before")
		if _, err := os.Stat(c.StateDir); err != nil {
			must(t, os.MkdirAll(c.StateDir, 0o700), os.WriteFile(before, nil, 0o600))
		}
	})
	v := web()
	first := pair(t, n.publish(v))
	if n.covered() {
		t.Error("it is covered")
	}
	must(t, os.Remove(before))
	n.restart()
	if again := pair(t, n.publish(v)); n.covered() || !again.Equal(first) {
		t.Error("a volume was covered")
	}
	must(t, n.Unpublish(t.Context(), n.driver, v))
	n.restart()
	if !n.covered() {
		t.Error("an empty directory is not covered")
	}
}

// Where there is no room for another volume's directory, the error says so, and the others go on.
func TestTheStateDirectoryIsFull(t *testing.T) {
	n := newNode(t, nil)
	target := n.publish(web())
	first := pair(t, target)
	limit := func(inodes string) {
		must(t, unix.Mount("", n.stateDir(), "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "nr_inodes="+inodes))
	}
	limit("2") // The directory itself, and the volume's.
	other := web()
	other.Name, other.UID = "web-1", "u-2"
	n.fails(other, "make the volume's directory: mkdir "+n.inState(other, "")+": no space left on device")
	if again := pair(t, n.publish(web())); !again.Equal(first) {
		t.Error("the first volume is another one")
	}
	limit("3")
	pair(t, n.publish(other))
}

// Who unmounts the state directory takes the volumes' tmpfs away. A pod keeps what it has until its volume is published
// again, and nothing is left of it at the end.
func TestTheStateDirectoryIsUnmounted(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	target := n.publish(v)
	first := pair(t, target)
	must(t, unix.Unmount(n.stateDir(), unix.MNT_DETACH))
	if again := pair(t, target); !again.Equal(first) {
		t.Error("the pod has lost its certificate")
	}
	if again := pair(t, n.publish(v)); again.Equal(first) {
		t.Error("the certificate is still that of the tmpfs that is gone")
	}
	n.restart()
	must(t, n.Unpublish(t.Context(), n.driver, v))
	n.empty()
}
