// Command profile writes profiles of the node plugin as it publishes, publishes again, renews and restarts, and of the
// controller as it decides: of CPU, allocations, and waits for locks and channels. It prints the top rows of each.
//
// The node plugin is driver.Driver with the local signer, over its real socket and with real mounts, in a process of
// its own: what calls it is in no profile. Scenarios may be named; without a name, all are recorded.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	out := flag.String("out", "", "directory for the profiles")
	rows := flag.Int("rows", 12, "how many rows of each profile to print")
	root := flag.String("node", "",
		"be the node plugin on this kubelet's root, told what to do on stdin; the command starts itself so")
	flag.Parse()
	var err error
	if *root != "" {
		err = node(ctx, *root)
	} else {
		err = run(ctx, *out, *rows, flag.Args())
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "profile:", err)
		os.Exit(1)
	}
}

// run records the scenarios of these names; all, if none is named.
func run(ctx context.Context, out string, rows int, names []string) error {
	if out == "" {
		return errors.New("--out is required")
	}
	if err := os.MkdirAll(out, 0o750); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	all := map[string]func(prefix string) error{
		"decision": func(prefix string) error { return profileDecision(ctx, prefix) },
	}
	for _, s := range scenarios() {
		all[s.name] = func(prefix string) error {
			return onMemory(func(dir string) error { return s.profile(ctx, dir, prefix) })
		}
	}
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(all))
	}
	for _, name := range names {
		if all[name] == nil {
			return fmt.Errorf("%s is not known: there are %v", name, slices.Sorted(maps.Keys(all)))
		}
		prefix := filepath.Join(out, name)
		if err := all[name](prefix); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := top(ctx, prefix, rows); err != nil {
			return err
		}
	}
	return nil
}

// onMemory gives f a directory on a tmpfs, which goes afterwards with all mounts in it.
func onMemory(f func(dir string) error) (err error) {
	dir, err := os.MkdirTemp("", "profile-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	if err := unix.Mount("profile", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return errors.Join(fmt.Errorf("mount a tmpfs: %w", err), os.Remove(dir))
	}
	defer func() { err = errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH), os.Remove(dir)) }()
	return f(dir)
}

// top prints the profiles whose paths begin with prefix: all functions, and then ours alone, to which counts what they
// call.
func top(ctx context.Context, prefix string, rows int) error {
	for _, kind := range kinds() {
		for _, view := range [][]string{nil, {"-show=mayfly-csi/mayfly/(driver|signer)"}} {
			args := append([]string{"tool", "pprof", "-top", fmt.Sprint("-nodecount=", rows)}, view...)
			cmd := exec.CommandContext(ctx, "go", append(args, prefix+"."+kind)...)
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
			fmt.Printf("\n%s.%s %s\n", filepath.Base(prefix), kind, filepath.Join(view...))
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("print %s.%s: %w", prefix, kind, err)
			}
		}
	}
	return nil
}
