package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// mayfly is the name of the driver that is ours.
const mayfly = "mayfly"

// startControlPlane starts a control plane in dir, with an issuer `ca` in the namespace `bench`, and returns its
// kubeconfig.
func startControlPlane(ctx context.Context, dir string) (string, error) {
	return filepath.Join(dir, "kubeconfig"), controlPlane(ctx, "up", "--dir", dir, "--nodes=", "--namespace=bench")
}

func stopControlPlane(ctx context.Context, dir string) error {
	return controlPlane(context.WithoutCancel(ctx), "down", "--dir", dir)
}

func controlPlane(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"run", "./cmd/cluster"}, args...)...)
	cmd.Dir = filepath.Join("..", "cluster")
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("control plane: %w", err)
	}
	return nil
}

// A driver is a node plugin under measurement, and the kubelet that calls it.
type driver struct {
	*kubelet.Kubelet
	kubelet.Driver
	name    string
	pid     int
	group   *cgroup   // nil: it is not in one of ours.
	command []string  // nil: somebody else started it.
	process *exec.Cmd // nil: not ours, or stopped.
	log     bytes.Buffer
}

// newMayfly is mayfly with a kubelet of its own on root. It is not started.
func newMayfly(o options, group *cgroup, root string, args ...string) (*driver, error) {
	k, err := kubelet.New(root)
	if err != nil {
		return nil, err
	}
	command := append([]string{
		o.mayfly, "node", "--node-name=bench", "--kubelet-root=" + root, "--driver-name=csi.mayfly.dev=csi-driver", "--keep-requests=0",
	}, args...)
	if group != nil {
		command = group.command(command...)
	}
	return &driver{Kubelet: k, name: mayfly, group: group, command: command}, nil
}

// start starts the driver's process, and returns when the kubelet has registered it. From then on each call has a
// connection of its own.
func (d *driver) start(ctx context.Context) error {
	d.process = exec.CommandContext(context.WithoutCancel(ctx), d.command[0], d.command[1:]...)
	d.process.Stderr = &d.log
	d.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.process.Start(); err != nil {
		d.process = nil
		return fmt.Errorf("start %s: %w", d.name, err)
	}
	d.pid = d.process.Process.Pid
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	registered, err := d.Register(ctx, "csi.mayfly.dev")
	if err != nil {
		return errors.Join(fmt.Errorf("register %s: %w", d.name, err), d.stop(), errors.New(d.log.String()))
	}
	d.Driver = kubelet.DialEachCall(strings.TrimPrefix(registered.Target(), "unix:"))
	return registered.Close()
}

// stop ends the driver's process, if it is ours.
func (d *driver) stop() error {
	if d.process == nil {
		return nil
	}
	err := errors.Join(d.process.Process.Signal(syscall.SIGTERM), d.process.Wait())
	d.process = nil
	return err
}

// connect connects to a driver that runs, and finds its process by its socket.
func connect(name, socket, root string) (*driver, error) {
	k, err := kubelet.New(root)
	if err != nil {
		return nil, err
	}
	d := &driver{Kubelet: k, Driver: kubelet.DialEachCall(socket), name: name}
	if d.pid, err = owner(socket); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", name, err)
	}
	return d, nil
}

// owner is the process that listens on a Unix socket (unix(7), SO_PEERCRED).
func owner(socket string) (pid int, err error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return 0, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, errors.Join(err, conn.Close())
	}
	var cred *unix.Ucred
	var optErr error
	err = raw.Control(func(fd uintptr) {
		cred, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, optErr, conn.Close()); err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// settle waits until the driver's process has next to nothing to do.
func (d *driver) settle(ctx context.Context) error {
	const quiet, look = 5 * time.Millisecond, 250 * time.Millisecond
	for {
		spent, err := d.spent(func() error { return wait(ctx, look) })
		if err != nil || spent.total() < quiet {
			return err
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
