package mount_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mayfly-csi/mayfly/driver/mount"
)

func TestATmpfsAndItsBindMount(t *testing.T) {
	source, target := filepath.Join(t.TempDir(), "source"), filepath.Join(t.TempDir(), "target")
	mkdir(t, source, target)
	for _, path := range []string{source, target} {
		t.Cleanup(func() {
			if err := mount.Unmount(path); err != nil {
				t.Error(err)
			}
		})
	}
	if is, err := mount.Is(source); is || err != nil {
		t.Fatalf("before: %v, %v", is, err)
	}
	noswap, err := mount.Tmpfs(source, "")
	if err != nil {
		t.Fatal(err)
	}
	if is, err := mount.Is(source); !is || err != nil {
		t.Fatalf("after: %v, %v", is, err)
	}
	options := mountinfo(t, source)
	for _, want := range []string{"nosuid", "nodev", "noexec", "size=32768k", "nr_inodes=128", "mode=700"} {
		if !strings.Contains(options, want) {
			t.Errorf("%q lacks %s", options, want)
		}
	}
	if strings.Contains(options, "noswap") != noswap {
		t.Errorf("noswap is %v, the kernel says %q", noswap, options)
	}
	mkdir(t, filepath.Join(source, "data"))
	bindTwice(t, filepath.Join(source, "data"), target)
}

// A context is for nodes that have SELinux, and does not keep the others from their volumes.
func TestAnSELinuxContext(t *testing.T) {
	dir := t.TempDir()
	if _, err := mount.Tmpfs(dir, "system_u:object_r:container_file_t:s0:c1,c2"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := mount.Unmount(dir); err != nil {
			t.Error(err)
		}
	}()
	types, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		t.Fatal(err)
	}
	options := mountinfo(t, dir)
	if got, want := strings.Contains(options, "container_file_t"), strings.Contains(string(types), "selinuxfs"); got != want {
		t.Errorf("with the context %v, and SELinux is there %v: %s", got, want, options)
	}
}

func bindTwice(t *testing.T, data, target string) {
	if mount.Bound(data, target) {
		t.Error("bound before it was")
	}
	if err := mount.Bind(data, target); err != nil {
		t.Fatal(err)
	}
	if !mount.Bound(data, target) {
		t.Error("not bound")
	}
	for _, want := range []string{"ro", "nosuid", "nodev", "noexec"} {
		if options := mountinfo(t, target); !strings.Contains(options, want) {
			t.Errorf("%q lacks %s", options, want)
		}
	}
	if err := os.WriteFile(filepath.Join(target, "x"), nil, 0o600); err == nil {
		t.Error("the target can be written")
	}
	// A crash between the two calls of Bind leaves a target that can be written: not bound, then.
	if err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if mount.Bound(data, target) {
		t.Error("a target that can be written counts as bound")
	}
	if err := unix.Mount(data, target, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := mount.Unmount(target); err != nil {
		t.Fatal(err)
	}
	if is, err := mount.Is(target); is || err != nil {
		t.Errorf("two mounts, one unmounted: %v, %v", is, err)
	}
}

func TestUnmountIsIdempotent(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, file, filepath.Join(dir, "absent"), filepath.Join(file, "below")} {
		if err := mount.Unmount(path); err != nil {
			t.Error(err)
		}
	}
}

func TestAMountOnNothing(t *testing.T) {
	absent := filepath.Join(t.TempDir(), "absent")
	if _, err := mount.Tmpfs(absent, ""); err == nil || !strings.Contains(err.Error(), absent) {
		t.Errorf("tmpfs: %v", err)
	}
	if err := mount.Bind(t.TempDir(), absent); err == nil || !strings.Contains(err.Error(), absent) {
		t.Errorf("bind: %v", err)
	}
	if is, err := mount.Is(absent); is || err != nil {
		t.Errorf("is: %v, %v", is, err)
	}
}

func mkdir(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

// mountinfo is the kernel's line about the mount on path.
func mountinfo(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.Fields(line)[4] == path {
			return line
		}
	}
	t.Fatalf("nothing is mounted on %s", path)
	return ""
}
