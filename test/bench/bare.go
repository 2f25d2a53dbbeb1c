package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A bareVolume is a volume made by system calls alone.
type bareVolume struct{ state, target string }

func (v bareVolume) publish() error {
	state, target := v.state, v.target
	if _, err := newCSR(); err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir(state, 0o700), os.Mkdir(target, 0o700)); err != nil {
		return err
	}
	if err := unix.Mount("bench", state, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=1m"); err != nil {
		return err
	}
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
		if err := os.WriteFile(filepath.Join(state, name), make([]byte, 1024), 0o400); err != nil {
			return err
		}
	}
	if err := unix.Mount(state, target, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
}

func (v bareVolume) unpublish() error {
	return errors.Join(unix.Unmount(v.target, unix.MNT_DETACH), unix.Unmount(v.state, unix.MNT_DETACH), os.Remove(v.target), os.Remove(v.state))
}

// bareVolumes is what a number of volumes cost when only the needed calls are made, some at a time: key and signing request, tmpfs,
// three files, bind mount, and all of it taken away again.
func (b *bench) bareVolumes(n int) (cost bareCost, err error) {
	volume := func(i int) bareVolume {
		return bareVolume{filepath.Join(b.dir, fmt.Sprint("bare-state-", i)), filepath.Join(b.dir, fmt.Sprint("bare-target-", i))}
	}
	begin := time.Now()
	cost.publish, err = spent(func() error {
		_, err := b.each(n, func(i int) error { return volume(i).publish() })
		return err
	})
	if err != nil {
		return cost, fmt.Errorf("system calls alone: %w", err)
	}
	cost.publish, cost.rate = cost.publish.by(n), float64(n)/time.Since(begin).Seconds()
	took, err := b.each(n, func(i int) error { return volume(i).unpublish() })
	if err != nil {
		return cost, fmt.Errorf("system calls alone: %w", err)
	}
	cost.unpublish = median(milliseconds(took))
	return cost, nil
}

// A bareCost is what a volume costs by system calls alone.
type bareCost struct {
	publish   cpuTime
	rate      float64 // Published a second.
	unpublish float64 // Median, in ms.
}
