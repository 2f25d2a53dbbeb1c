package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// start starts mayfly, if it is wanted, connects to the other drivers, and to what floors need. What it returns ends
// all of that.
func (b *bench) start(ctx context.Context) (stop func() error, err error) {
	var stops []func() error
	stop = func() (err error) {
		for _, one := range stops {
			err = errors.Join(err, one())
		}
		return err
	}
	if b.api, err = newAPI(ctx, b.kubeconfig); err != nil {
		return stop, err
	}
	if err := wait(ctx, time.Second); err != nil { // The floor's own watch ends.
		return stop, err
	}
	if b.watches, err = b.api.watches(ctx); err != nil {
		return stop, err
	}
	if b.mayfly != "" {
		group, remove := b.newCgroup()
		d, err := newMayfly(b.options, group, filepath.Join(b.dir, "node"), "--kubeconfig="+b.kubeconfig)
		if err != nil {
			return stop, err
		}
		stops = append(stops, d.stop, remove)
		if err := d.start(ctx); err != nil {
			return stop, err
		}
		b.drivers = append(b.drivers, d)
	}
	for _, name := range slices.Sorted(maps.Keys(b.others)) {
		d, err := connect(name, b.others[name], filepath.Join(b.dir, name))
		if err != nil {
			return stop, err
		}
		b.drivers = append(b.drivers, d)
	}
	return stop, nil
}

// newCgroup makes a memory cgroup, or notes why it can't and returns nil. What else it returns removes it.
func (b *bench) newCgroup() (group *cgroup, remove func() error) {
	group, err := newCgroup()
	if err != nil {
		b.notes = append(b.notes, fmt.Sprintf("The memory of a cgroup was not measured: %v.", err))
		return nil, func() error { return nil }
	}
	return group, group.remove
}

// machine says what the numbers are of.
func (b *bench) machine() (string, error) {
	var kernel unix.Utsname
	var system unix.Statfs_t
	if err := errors.Join(unix.Uname(&kernel), unix.Statfs(b.dir, &system)); err != nil {
		return "", fmt.Errorf("look at the machine: %w", err)
	}
	names := map[int64]string{
		unix.TMPFS_MAGIC: "tmpfs", unix.EXT4_SUPER_MAGIC: "ext4",
		unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
	}
	name, ok := names[system.Type]
	if !ok {
		name = fmt.Sprintf("file system %#x", system.Type)
	}
	version, _, _ := strings.Cut(unix.ByteSliceToString(kernel.Release[:]), "-")
	return fmt.Sprintf("%d volumes, %d calls at a time, %d rounds; %d cores, Linux %s, %s.",
		b.volumes, b.atOnce, b.rounds, runtime.NumCPU(), version, name), nil
}
