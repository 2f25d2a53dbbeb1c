package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly-csi/mayfly/driver/mount"
)

// Lock locks the state directory until unlock is called or the process ends (flock(2)). It waits for another process
// that has locked it: a predecessor that is still ending, or another node plugin.
//
// An empty state directory gets a tmpfs, which stays for the next process: the volumes' directories are made there. One
// that is not empty has the volumes of an earlier version, which are not covered.
func (s *Store) Lock(ctx context.Context) (unlock func() error, err error) {
	lock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	covered, err := s.cover()
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if !covered {
		return lock.Close, nil
	}
	// Whoever opens the state directory from now on finds the tmpfs.
	onTop, err := s.lock(ctx)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return func() error { return errors.Join(onTop.Close(), lock.Close()) }, nil
}

// cover mounts a tmpfs on an empty state directory, and reports whether it has.
func (s *Store) cover() (bool, error) {
	mounted, err := mount.Is(s.dir)
	if err != nil || mounted {
		return false, err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil || len(entries) > 0 {
		return false, err
	}
	err = mount.Directories(s.dir)
	return err == nil, err
}

// lock locks what is the state directory now, until it is closed.
func (s *Store) lock(ctx context.Context) (*os.File, error) {
	dir, err := os.Open(s.dir)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	for waits := false; ; waits = true {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return dir, nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, errors.Join(fmt.Errorf("lock the state directory %s: %w", s.dir, err), dir.Close())
		case !waits:
			s.log.Warn("waiting for another node plugin with the same state directory to end; "+
				"each needs its own (--state-dir)", "path", s.dir)
		}
		select {
		case <-time.After(time.Second): // flock(2) has no wait with a timeout.
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), dir.Close())
		}
	}
}
