// Package mount makes and removes the mounts of a volume by system calls: its tmpfs, and the bind mount on a pod's
// target.
package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	mountutils "k8s.io/mount-utils"
)

// flags are set on every mount: a certificate volume has no programs and no devices.
const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// The limits of a volume's tmpfs. Two generations of the files of all layouts, with chain and CA certificates of the
// greatest size that is accepted, and two records of those certificates fit. They take some 9 and 3 MiB each.
const (
	size   = 32 << 20
	inodes = 128
)

// Directories mounts a tmpfs on dir that is for directories alone: it has room for those of 16,384 volumes, and none
// for files. A directory costs a tenth there of what it costs on ext4.
func Directories(dir string) error {
	if err := unix.Mount("mayfly", dir, "tmpfs", flags, "size=4096,nr_inodes=16385,mode=0700"); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
	}
	return nil
}

// Tmpfs mounts a tmpfs on dir, with the SELinux context if one is given and the node has SELinux. It is kept out of
// swap where kernel and user namespace allow it, as noswap reports (Linux 6.4, initial user namespace;
// Documentation/filesystems/tmpfs.rst).
func Tmpfs(dir, context string) (noswap bool, err error) {
	options := fmt.Sprintf("size=%d,nr_inodes=%d,mode=0700", size, inodes)
	if context != "" && hasSELinux() {
		options += fmt.Sprintf(",context=%q", context)
	}
	err = unix.Mount("mayfly", dir, "tmpfs", flags, options+",noswap")
	if err == nil {
		return true, nil
	}
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("mayfly", dir, "tmpfs", flags, options)
	}
	if err != nil {
		return false, fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
	}
	return false, nil
}

// hasSELinux reports whether the kernel has SELinux switched on, as libselinux finds out: without it a context is an
// unknown option of a mount.
func hasSELinux() bool {
	types, err := os.ReadFile("/proc/filesystems")
	return err == nil && slices.Contains(strings.Fields(string(types)), "selinuxfs")
}

// Bind mounts source, read-only, on target. A bind mount takes its flags from its source; a second call makes it
// read-only (mount(2), "Remounting an existing mount") and drops the flags that it does not repeat.
func Bind(source, target string) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s on %s: %w", source, target, err)
	}
	if err := readOnly(target); err != nil {
		return errors.Join(err, Unmount(target))
	}
	return nil
}

// readOnly remounts target read-only.
func readOnly(target string) error {
	if err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|flags, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", target, err)
	}
	return nil
}

// Bound reports whether source is mounted on target, read-only.
func Bound(source, target string) bool {
	var stat unix.Statfs_t
	return Same(source, target) && unix.Statfs(target, &stat) == nil && stat.Flags&unix.ST_RDONLY != 0
}

// Same reports whether source is mounted on target: only a bind mount makes two directories the same.
func Same(source, target string) bool {
	a, errA := os.Lstat(source)
	b, errB := os.Lstat(target)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// Is reports whether path is a mount point. A path that does not exist is none.
func Is(path string) (bool, error) {
	is, err := isRoot(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for a mount on %s: %w", path, err)
	}
	return is, nil
}

// isRoot asks the kernel whether path is the root of a mount (statx(2), Linux 5.8). Where it does not tell, mountutils
// finds out, which looks at each element of the path and takes ten times as long.
func isRoot(path string) (bool, error) {
	var stat unix.Statx_t
	const how = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_STATX_DONT_SYNC
	err := unix.Statx(unix.AT_FDCWD, path, how, 0, &stat)
	switch {
	case err == nil && stat.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0:
		return stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
	case err != nil && !errors.Is(err, unix.ENOSYS):
		return false, err
	}
	return new(mountutils.Mounter).IsMountPoint(path) // mountutils.New executes umount.
}

// Unmount removes every mount on path, and succeeds if there is none. Files that are open stay usable.
func Unmount(path string) error {
	for {
		// EINVAL: not a mount point (umount(2)).
		err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
			return nil
		case err != nil:
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
}
