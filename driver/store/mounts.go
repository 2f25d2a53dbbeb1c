package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/mount"
)

// Mount mounts the volume's tmpfs unless it is mounted. A volume whose tmpfs another process has unmounted has no pair
// any more: it is in no file from which the pod's target could be bound.
func (s *Store) Mount(v *Volume, selinuxContext string) error {
	switch err := os.Mkdir(string(v.dir), 0o700); {
	case errors.Is(err, fs.ErrExist):
		if mounted, err := mount.Is(string(v.dir)); err != nil || mounted {
			return err
		}
	case err != nil:
		return fmt.Errorf("make the volume's directory: %w", err)
	}
	noswap, err := mount.Tmpfs(string(v.dir), selinuxContext)
	if err != nil {
		return err
	}
	v.unsetPair()
	if !noswap {
		s.swappable.Inc()
	}
	return nil
}

// mounted returns an error if the volume's tmpfs is not mounted: no key may be written to a disk.
func (v *Volume) mounted() error {
	if mounted, err := mount.Is(string(v.dir)); err != nil || !mounted {
		return cmp.Or(err, fmt.Errorf("the tmpfs of volume %s was unmounted by another process", v.id))
	}
	return nil
}

// Bound reports whether the volume is mounted on target.
func (v *Volume) Bound(target string) bool { return mount.Bound(v.dir.Data(), target) }

// Foreign reports whether something else than the volume is mounted on target: another driver's volume, or this one's
// from before its tmpfs was unmounted.
func (v *Volume) Foreign(target string) (bool, error) {
	mounted, err := mount.Is(target)
	return mounted && !mount.Same(v.dir.Data(), target), err
}

// Bind mounts the volume on target, in place of what is mounted there. It reports whether that was foreign.
func (v *Volume) Bind(target string) (replaced bool, err error) {
	if v.Bound(target) {
		return false, nil
	}
	if err := os.Mkdir(target, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return false, fmt.Errorf("make the target: %w", err)
	}
	if replaced, err = v.Foreign(target); err != nil {
		return false, err
	}
	if err := mount.Unmount(target); err != nil {
		return false, err
	}
	return replaced, mount.Bind(v.dir.Data(), target)
}

// Remove takes all of the volume away: the pod's view, then the secrets, then the mount. It returns the last record.
// After an error the volume is as usable as what is left of it, and Remove goes on where it stopped. Until Forget the
// store still has the volume, so that no other one has its id. The volume's turn must be held.
func (s *Store) Remove(v *Volume, target string) (last Record, err error) {
	if err := mount.Unmount(target); err != nil {
		return Record{}, err
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Record{}, fmt.Errorf("remove the target: %w", err)
	}
	last = v.setRemoved(true)
	defer v.LockFiles()()
	if err := removeDir(v.dir); err != nil {
		v.setRemoved(false)
		return Record{}, err
	}
	return last, nil
}

// setRemoved sets whether the volume is removed, and returns its record.
func (v *Volume) setRemoved(removed bool) Record {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.removed = removed
	v.wake()
	return v.record
}

// removeDir empties and unmounts a volume's tmpfs, if it is mounted, and removes its directory.
func removeDir(dir files.Dir) error {
	mounted, err := mount.Is(string(dir))
	if err != nil {
		return err
	}
	if mounted {
		if err := dir.RemoveAll(); err != nil {
			return err
		}
		if err := mount.Unmount(string(dir)); err != nil {
			return err
		}
	}
	err = os.Remove(string(dir))
	if errors.Is(err, unix.ENOTEMPTY) { // Files that were written after another process had unmounted the tmpfs.
		if err := dir.RemoveAll(); err != nil {
			return err
		}
		err = os.Remove(string(dir))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the volume's directory: %w", err)
	}
	return nil
}
