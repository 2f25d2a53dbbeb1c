package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountPlace mounts what volumes lie on at dir: a tmpfs, or a new directory in the one named. No other namespace gets
// its mounts. What it returns unmounts it with all below it.
func mountPlace(dir, in string) (unmount func() error, err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	source, flags := "bench", uintptr(unix.MS_NOSUID|unix.MS_NODEV)
	if in != "" {
		flags = unix.MS_BIND
		if source, err = os.MkdirTemp(in, "bench-"); err != nil {
			return nil, fmt.Errorf("make a directory: %w", err)
		}
	}
	if err := unix.Mount(source, dir, "tmpfs", flags, ""); err != nil {
		return nil, fmt.Errorf("mount a place for volumes: %w", err)
	}
	unmount = func() error {
		err := unix.Unmount(dir, unix.MNT_DETACH)
		if in != "" {
			err = errors.Join(err, os.RemoveAll(source))
		}
		return err
	}
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		return nil, errors.Join(fmt.Errorf("keep mounts from other namespaces: %w", err), unmount())
	}
	return unmount, nil
}

// A cgroup is a memory cgroup: its directory, and the file that says how much is charged to it.
type cgroup struct{ dir, usage string }

// newCgroup makes a memory cgroup of the bench's own. Remove it after use.
func newCgroup() (*cgroup, error) {
	for _, version := range []struct{ root, usage string }{
		{"/sys/fs/cgroup/memory", "memory.usage_in_bytes"}, // Version 1.
		{"/sys/fs/cgroup", "memory.current"},               // Version 2.
	} {
		dir, err := os.MkdirTemp(version.root, "mayfly-bench-")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("make a memory cgroup: %w", err)
		}
		c := &cgroup{dir, filepath.Join(dir, version.usage)}
		if _, err := c.bytes(); err != nil { // Version 2, with the memory controller not given to children.
			return nil, errors.Join(fmt.Errorf("make a memory cgroup: %w", err), c.remove())
		}
		return c, nil
	}
	return nil, errors.New("make a memory cgroup: no hierarchy is mounted at /sys/fs/cgroup")
}

// bytes is what is charged to the cgroup: heap, pages of tmpfs, and the kernel's objects.
func (c *cgroup) bytes() (float64, error) {
	text, err := os.ReadFile(c.usage)
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
}

// charged is what is charged to the driver's cgroup; 0 if it has none of the bench's own.
func (d *driver) charged() (float64, error) {
	if d.group == nil {
		return 0, nil
	}
	return d.group.bytes()
}

// command is a command line that enters the cgroup and then executes the given one, as the same process.
func (c *cgroup) command(args ...string) []string {
	return append([]string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(c.dir, "cgroup.procs")}, args...)
}

func (c *cgroup) remove() error { return os.Remove(c.dir) }
