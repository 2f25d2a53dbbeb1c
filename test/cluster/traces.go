package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	"k8s.io/apimachinery/pkg/util/wait"
)

// traces are what a cluster has on this machine and must not leave. Other clusters have their own.
type traces struct {
	dir        string
	namespaces map[string]bool // Of its processes, as /proc names them: "net:[4026531840]".
	cgroups    map[string]bool // Directories.
	links      []string        // Their names, in the network namespace of this process.
}

// traces finds what the cluster has while it runs.
func (c *Cluster) traces() (traces, error) {
	found := traces{dir: c.Dir, namespaces: map[string]bool{}, cgroups: map[string]bool{}, links: append([]string{bridge}, c.Nodes...)}
	var first []int
	for _, m := range c.machines() {
		if pid := m.pid(); pid != 0 {
			first = append(first, pid)
		}
	}
	all, err := descendants(first)
	if err != nil {
		return found, fmt.Errorf("find the processes of the cluster: %w", err)
	}
	for _, process := range all {
		found.add(process)
	}
	return found, nil
}

// add adds what a process has and this one does not. A process that has ended has nothing.
func (t traces) add(process int) {
	own := map[string]bool{}
	for _, n := range namespaces("self") {
		own[n] = true
	}
	for _, n := range namespaces(strconv.Itoa(process)) {
		if !own[n] {
			t.namespaces[n] = true
		}
	}
	for _, dir := range cgroupsOf(strconv.Itoa(process)) {
		if !slices.Contains(cgroupsOf("self"), dir) {
			t.cgroups[dir] = true
		}
	}
}

// descendants returns processes and all that they have started.
func descendants(of []int) ([]int, error) {
	processes, err := procfs.AllProcs()
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, p := range processes {
		if stat, err := p.Stat(); err == nil { // It may have ended.
			children[stat.PPID] = append(children[stat.PPID], p.PID)
		}
	}
	for i := 0; i < len(of); i++ {
		of = append(of, children[of[i]]...)
	}
	return of, nil
}

// namespaces returns the namespaces of a process.
func namespaces(process string) (all []string) {
	paths, _ := filepath.Glob(filepath.Join("/proc", process, "ns", "*")) // The pattern is right.
	for _, path := range paths {
		if to, err := os.Readlink(path); err == nil {
			all = append(all, to)
		}
	}
	return all
}

// cgroupsOf returns the directories of a process's cgroups (cgroups(7), /proc/pid/cgroup).
func cgroupsOf(process string) (dirs []string) {
	text, err := os.ReadFile(filepath.Join("/proc", process, "cgroup"))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) == 3 && fields[2] != "/" { // All of a hierarchy is nobody's.
			dirs = append(dirs, filepath.Join("/sys/fs/cgroup", strings.TrimPrefix(fields[1], "name="), fields[2]))
		}
	}
	return dirs
}

// gone waits until nothing of the traces is left: the kernel takes apart what a killed machine had in its own time.
func (t traces) gone(ctx context.Context) error {
	var left []string
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		var err error
		left, err = t.left()
		return len(left) == 0, err
	})
	if len(left) > 0 {
		return fmt.Errorf("the cluster left:\n%s", strings.Join(left, "\n"))
	}
	return err
}

// left lists what is left.
func (t traces) left() (all []string, err error) {
	processes, err := procfs.AllProcs()
	if err != nil {
		return nil, err
	}
	for _, p := range processes {
		for _, n := range namespaces(strconv.Itoa(p.PID)) {
			if t.namespaces[n] {
				all = append(all, fmt.Sprintf("process %d in %s", p.PID, n))
			}
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(t.cgroups)) {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			all = append(all, "cgroup "+dir)
		}
	}
	for _, name := range t.links {
		if _, err := net.InterfaceByName(name); err == nil {
			all = append(all, "link "+name)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, t.dir+"/") || strings.Contains(line, t.dir+" ") {
			all = append(all, "mount "+strings.TrimSpace(line))
		}
	}
	return all, err
}
