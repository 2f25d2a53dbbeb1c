package main

import (
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

// startControlPlane starts a control plane in dir, with an issuer `ca` in the namespace `bench`, and returns its kubeconfig.
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

// A driver is a node plugin under measurement.
type driver struct {
	*kubelet.Kubelet
	kubelet.Driver
	name    string
	pid     int
	process *exec.Cmd // nil if it is not ours.
	log     *os.File
}

// start starts mayfly, if it is wanted, and connects to the other drivers.
func start(ctx context.Context, o options, dir string) (drivers []*driver, err error) {
	if o.mayfly != "" {
		d, err := startMayfly(ctx, o, filepath.Join(dir, "node"), "--kubeconfig="+o.kubeconfig)
		if err != nil {
			return nil, err
		}
		drivers = append(drivers, d)
	}
	for name, socket := range o.others {
		d, err := connect(name, socket, filepath.Join(dir, name))
		if err != nil {
			return drivers, err
		}
		drivers = append(drivers, d)
	}
	return drivers, nil
}

func startMayfly(ctx context.Context, o options, root string, args ...string) (*driver, error) {
	k, err := kubelet.New(root)
	if err != nil {
		return nil, err
	}
	d := &driver{Kubelet: k, name: "mayfly"}
	if d.log, err = os.Create(filepath.Join(root, "log")); err != nil {
		return nil, fmt.Errorf("make a log: %w", err)
	}
	d.process = exec.CommandContext(context.WithoutCancel(ctx), o.mayfly, append([]string{"node", "--node-name=bench", "--kubelet-root=" + root}, args...)...)
	d.process.Stderr = d.log
	d.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.process.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start mayfly: %w", err), d.log.Close())
	}
	d.pid = d.process.Process.Pid
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if d.Driver, err = k.Register(ctx, "csi.mayfly.dev"); err != nil {
		text, _ := os.ReadFile(d.log.Name())
		return nil, errors.Join(fmt.Errorf("register mayfly: %w\n%s", err, text), d.stop())
	}
	return d, nil
}

// connect connects to a driver that runs, and finds its process by its socket.
func connect(name, socket, root string) (*driver, error) {
	k, err := kubelet.New(root)
	if err != nil {
		return nil, err
	}
	d := &driver{Kubelet: k, name: name}
	if d.pid, err = owner(socket); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", name, err)
	}
	d.Driver, err = kubelet.Connect(socket)
	return d, err
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
	err = raw.Control(func(fd uintptr) { cred, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, optErr, conn.Close()); err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

func (d *driver) stop() error {
	var err error
	if d.ClientConn != nil {
		err = d.Close()
	}
	if d.process == nil {
		return err
	}
	return errors.Join(err, d.process.Process.Signal(syscall.SIGTERM), d.process.Wait(), d.log.Close())
}

// cpu is the time that the driver's process has spent on the processors (clock_getcpuclockid(3)).
func (d *driver) cpu() (time.Duration, error) {
	const processClock = 2 // CPUCLOCK_SCHED, of a process (linux/posix-timers.h).
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^d.pid<<3|processClock), &t); err != nil {
		return 0, fmt.Errorf("read the processor time of %s: %w", d.name, err)
	}
	return time.Duration(t.Nano()), nil
}

// resident is the memory that the driver's process has, in bytes.
func (d *driver) resident() (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.pid))
	if err != nil {
		return 0, fmt.Errorf("read the memory of %s: %w", d.name, err)
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	var kib float64
	if _, err := fmt.Sscanf(after, "%f kB", &kib); err != nil {
		return 0, fmt.Errorf("read the memory of %s: %w", d.name, err)
	}
	return kib * 1024, nil
}
