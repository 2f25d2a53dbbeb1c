package mount_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mayfly-csi/mayfly/driver/mount"
)

// A container runtime shows a volume to a pod with a user namespace of its own through an id-mapped mount
// (mount_setattr(2)): users and groups are the container's in the volume, and the node's in the pod. A tmpfs allows
// it from Linux 6.3.
func TestAVolumeOfAPodWithAUserNamespace(t *testing.T) {
	const group, first = 2000, 100000 // In the volume; of the range on the node.
	source, target := filepath.Join(t.TempDir(), "source"), filepath.Join(t.TempDir(), "target")
	mkdir(t, source, target)
	if _, err := mount.Tmpfs(source, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, target, source) })
	mkdir(t, filepath.Join(source, "data"))
	key := filepath.Join(source, "data", "tls.key")
	if err := os.WriteFile(key, nil, 0o440); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(key, 0, group); err != nil {
		t.Fatal(err)
	}
	if err := mount.Bind(filepath.Join(source, "data"), target); err != nil {
		t.Fatal(err)
	}
	pod := t.TempDir()
	idmapped(t, target, pod, first)
	t.Cleanup(func() { unmount(t, pod) })
	var stat unix.Stat_t
	if err := unix.Stat(filepath.Join(pod, "tls.key"), &stat); err != nil || stat.Uid != first || stat.Gid != first+group {
		t.Errorf("the key is of user %d and group %d, want %d and %d (%v)", stat.Uid, stat.Gid, first, first+group, err)
	}
	if err := os.WriteFile(filepath.Join(pod, "x"), nil, 0o600); err == nil {
		t.Error("the pod can write")
	}
}

func unmount(t *testing.T, paths ...string) {
	for _, path := range paths {
		if err := mount.Unmount(path); err != nil {
			t.Error(err)
		}
	}
}

// idmapped shows source at target, its ids mapped to those from first on, as a container runtime does.
func idmapped(t *testing.T, source, target string, first int) {
	t.Helper()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: first, Size: 65536}}
	holder := exec.CommandContext(t.Context(), "sleep", "infinity") // Its namespace has the map.
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = holder.Process.Kill(), holder.Wait() }()
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", holder.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close()
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(tree) //nolint:errcheck // Nothing was written.
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(namespace.Fd())}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, attr); err != nil {
		t.Fatal(err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		t.Fatal(err)
	}
}
