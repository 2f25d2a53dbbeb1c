package driver_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// A disk is an ext4 that can break: from then on the kernel answers what would read or write it with EIO.
type disk struct {
	t          *testing.T
	image, dir string
}

// newDisk mounts a disk on a directory.
func newDisk(t *testing.T, image, dir string) *disk {
	t.Helper()
	d := &disk{t, image, dir}
	must(t, os.WriteFile(image, nil, 0o600), os.Truncate(image, 32<<20))
	d.execute("mkfs.ext4", "-q", image)
	d.mount()
	return d
}

func (d *disk) execute(command string, args ...string) {
	d.t.Helper()
	if out, err := exec.Command(command, args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

func (d *disk) mount() {
	d.t.Helper()
	d.execute("mount", "-o", "loop", d.image, d.dir)
}

// breaks breaks the disk. What was written before is on it.
func (d *disk) breaks() {
	d.t.Helper()
	f, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	const shutdown, flush = 0x8004587d, 1 // EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_LOGFLUSH (include/uapi/linux/ext4.h)
	if err := unix.IoctlSetPointerInt(int(f.Fd()), shutdown, flush); err != nil {
		d.t.Fatal(err)
	}
}

// mend mounts the disk anew, which takes all mounts on it away, as a reboot does. No driver may run.
func (d *disk) mend() {
	d.t.Helper()
	must(d.t, unix.Unmount(d.dir, unix.MNT_DETACH))
	d.mount()
}

// onDisk is a node whose pods' directories or state directory are on a disk.
func onDisk(t *testing.T, directory string) (*node, *disk) {
	t.Helper()
	n := newNode(t, nil)
	must(t, n.stop())
	must(t, unix.Unmount(n.stateDir(), unix.MNT_DETACH)) // A child that is being forked has its files.
	d := newDisk(t, filepath.Join(n.Root, "disk"), filepath.Join(n.Root, directory))
	must(t, os.RemoveAll(filepath.Join(d.dir, "lost+found")))
	n.start()
	return n, d
}

// A disk that breaks takes no pair from a pod, not even when the driver is restarted. What can't be done is an error
// that the kubelet tries again, and succeeds when the disk is mended.
func TestADiskThatBreaks(t *testing.T) {
	for where, directory := range map[string]string{
		"pods": "pods", "state directory": filepath.Join("plugins", name, "volumes"),
	} {
		t.Run(where, func(t *testing.T) {
			n, d := onDisk(t, directory)
			stays, goes, comes := web(), web(), web()
			goes.UID, comes.UID = "3b2f6a5e-0001-4c5e-9d3e-000000000002", "3b2f6a5e-0001-4c5e-9d3e-000000000003"
			target := n.publish(stays)
			n.publish(goes)
			must(t, os.MkdirAll(filepath.Dir(n.Target(comes)), 0o750), os.WriteFile(n.Data(comes), []byte("{}"), 0o600))
			d.breaks()

			check := func() {
				t.Helper()
				n.isIOError(n.Unpublish(t.Context(), n.driver, goes))
				_, err := n.Publish(t.Context(), n.driver, comes)
				n.isIOError(err)
				before := pair(t, n.publish(stays))
				n.renew(stays)
				until(t, "it is renewed", func() bool { return !pair(t, target).Equal(before) })
			}
			check()
			n.restart()
			check()

			must(t, n.stop())
			d.mend()
			n.start()
			for _, v := range []kubelet.Volume{stays, comes} {
				pair(t, n.publish(v))
			}
			for _, v := range []kubelet.Volume{stays, goes, comes} {
				n.unpublish(v)
				if exists(t, n.Target(v)) || exists(t, n.inState(v, "")) {
					t.Errorf("something is left of %s", v.UID)
				}
			}
		})
	}
}

// isIOError demands an EIO that the kubelet tries again.
func (n *node) isIOError(err error) {
	n.t.Helper()
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), n.Root) || !strings.Contains(err.Error(), unix.EIO.Error()) {
		n.t.Errorf("the call: %v", err)
	}
}
