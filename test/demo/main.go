// Command demo is what `make run` starts: the node plugin with its embedded CA, something that plays the kubelet, and a few pods
// whose certificates rotate before your eyes. It needs neither Kubernetes nor root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	mayfly   string
	pods     int
	duration time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.mayfly, "mayfly", "bin/mayfly", "path of the node plugin's binary")
	flag.IntVar(&o.pods, "pods", 6, "how many pods")
	flag.DurationVar(&o.duration, "duration", 30*time.Second, "lifetime of a certificate")
	flag.Parse()
	if os.Geteuid() != 0 {
		os.Exit(inNamespace())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// inNamespace runs the program again as the root of a user namespace, where it may mount: the code is that of the second run.
func inNamespace() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGTERM,
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "demo: enter a user namespace: %v\nRun it as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1).\n", err)
		return 1
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // Its exit code becomes ours.
	}()
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s) // Ctrl-C reaches it from the terminal, too: a second time does no harm.
		case <-done:
			return cmd.ProcessState.ExitCode()
		}
	}
}

// run shows the pods until ctx ends, and leaves nothing.
func run(ctx context.Context, o options) error {
	root, err := os.MkdirTemp("", "mayfly-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	n, err := startNode(ctx, o.mayfly, root)
	if err != nil {
		return errors.Join(err, os.RemoveAll(root))
	}
	pods, err := n.publish(ctx, o)
	if err == nil {
		show(ctx, os.Stdout, pods)
	}
	if ctx.Err() != nil {
		err = nil // Told to end.
	}
	err = errors.Join(err, n.unpublish(pods), n.stop(), n.unmount(), os.RemoveAll(root), nothingLeft(root))
	if err == nil {
		fmt.Println("Unpublished: no mount, file or process is left.")
	}
	return err
}

// nothingLeft looks for what should be gone.
func nothingLeft(root string) error {
	if mounted, err := mounts(root); err != nil || len(mounted) > 0 {
		return errors.Join(err, fmt.Errorf("still mounted: %v", mounted))
	}
	if _, err := os.Stat(root); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is still there", root)
	}
	return nil
}

// visible is a path as another shell sees it: a namespace of our own is reached through our process.
func visible(path string) string {
	own, err1 := os.Readlink("/proc/self/ns/mnt")
	parent, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", os.Getppid()))
	if err1 == nil && err2 == nil && own == parent {
		return path
	}
	return filepath.Join(fmt.Sprintf("/proc/%d/root", os.Getpid()), path)
}
