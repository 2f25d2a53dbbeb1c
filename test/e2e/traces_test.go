package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// traces are what a cluster may leave on this machine: namespaces in which a process runs, mounts, links, cgroups.
func traces() (map[string]bool, error) {
	found := map[string]bool{}
	namespaces, err := filepath.Glob("/proc/[0-9]*/ns/*")
	if err != nil {
		return nil, err
	}
	for _, path := range namespaces {
		if to, err := os.Readlink(path); err == nil { // The process may have ended.
			found["namespace "+to] = true
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		found["mount "+strings.TrimSpace(line)] = true
	}
	// What a kubelet would set for the whole kernel.
	for _, name := range []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"} {
		value, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if err != nil {
			return nil, err
		}
		found["setting "+name+" "+strings.TrimSpace(string(value))] = true
	}
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		found["link "+link.Name] = true
	}
	err = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			found["cgroup "+path] = true
		}
		return nil // A cgroup may go while it is walked.
	})
	return found, err
}

// left tells what is there that was not there before, and stays: others are at work on this machine, too.
func left(ctx context.Context, before map[string]bool) error {
	return within(ctx, time.Minute, "the cluster to leave nothing", func(context.Context) error {
		after, err := traces()
		if err != nil {
			return err
		}
		maps.DeleteFunc(after, func(trace string, _ bool) bool { return before[trace] })
		if len(after) > 0 {
			return fmt.Errorf("it left:\n%s", strings.Join(slices.Sorted(maps.Keys(after)), "\n"))
		}
		return nil
	})
}
