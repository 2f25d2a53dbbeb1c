package kubelet

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// CleanUp unmounts what is mounted below a root, and removes it.
func CleanUp(root string) error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	errs := []error{err}
	for line := range strings.Lines(string(text)) {
		path := strings.Fields(line)[4] // proc_pid_mountinfo(5)
		if !strings.HasPrefix(path, root+"/") {
			continue
		}
		// EINVAL, ENOENT: it went with the mount that it lay on.
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, os.RemoveAll(root))...)
}
