package e2e

import (
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// left tells what is there that was not there before.
func left(before map[string]bool) error {
	after, err := traces()
	if err != nil {
		return err
	}
	maps.DeleteFunc(after, func(trace string, _ bool) bool { return before[trace] })
	if len(after) > 0 {
		return fmt.Errorf("the cluster left:\n%s", strings.Join(slices.Sorted(maps.Keys(after)), "\n"))
	}
	return nil
}
