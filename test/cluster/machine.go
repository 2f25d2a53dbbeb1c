package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// A Machine is a computer of the cluster: it has process, mount, network and host name namespaces of its own, and a file system
// of its own at /var, /run and /tmp. What runs, is mounted or connected there is gone when its first process ends; only /var stays.
type Machine struct {
	Name string

	dir      string    // The cluster's.
	tied     bool      // It ends with this process, however this one ends.
	cmd      *exec.Cmd // Its first process, if this process started it.
	lifeline *os.File  // Open for as long as a tied machine is to run.
}

// A service is a program that runs on a machine, and is started again when it ends.
type service struct {
	name string
	argv []string
}

// prepare writes what the machine starts from, before its first start.
func (m *Machine) prepare(services []service) error {
	for _, dir := range []string{"var/lib/kubelet", "var/lib/containerd", "var/log", "services"} {
		if err := os.MkdirAll(filepath.Join(m.dir, m.Name, dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(m.dir, "logs", m.Name), 0o755); err != nil {
		return err
	}
	if err := os.Symlink("/run", filepath.Join(m.dir, m.Name, "var/run")); err != nil {
		return err
	}
	for _, s := range services {
		if err := m.install(s); err != nil {
			return fmt.Errorf("install service %s: %w", s.name, err)
		}
	}
	return nil
}

// install makes or replaces a service; one that runs is as before until its next start.
func (m *Machine) install(s service) error {
	if err := os.MkdirAll(m.serviceDir(s.name), 0o755); err != nil {
		return err
	}
	quoted := make([]string, len(s.argv))
	for i, arg := range s.argv {
		quoted[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
	}
	script := fmt.Sprintf("#!/bin/sh\nexec >>/mnt/logs/%s/%s.log 2>&1\nexec %s\n", m.Name, s.name, strings.Join(quoted, " \\\n  "))
	return os.WriteFile(filepath.Join(m.serviceDir(s.name), "run"), []byte(script), 0o755) //nolint:gosec // A script.
}

func (m *Machine) serviceDir(service string) string {
	return filepath.Join(m.dir, m.Name, "services", service)
}

// start starts the machine; connect plugs in its network, given the process id of its first process. All of its services have the files open.
func (m *Machine) start(connect func(pid int) error, files ...*os.File) (err error) {
	log, err := os.OpenFile(filepath.Join(m.dir, "logs", m.Name, "init.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	cmd := exec.Command("/bin/sh", filepath.Join(m.dir, m.Name, "init.sh"))
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, files
	if m.tied {
		there, here, err := os.Pipe()
		if err != nil {
			return err
		}
		defer there.Close() //nolint:errcheck // Nothing is written.
		m.lifeline = here
		cmd.Env = append(os.Environ(), fmt.Sprintf("LIFELINE=%d", 3+len(files))) // After the standard files.
		cmd.ExtraFiles = append(cmd.ExtraFiles, there)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS,
		Setsid:     true,
	}
	ready, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start machine %s: %w", m.Name, err)
	}
	m.cmd = cmd
	if err := m.remember(cmd.Process.Pid); err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	if err := connect(cmd.Process.Pid); err != nil {
		return fmt.Errorf("connect machine %s: %w", m.Name, err)
	}
	return ready.Close()
}

// remember records the machine's first process, by its id and the time of its start: an id alone may be used again.
func (m *Machine) remember(pid int) error {
	begin, err := startedAt(pid)
	if err != nil {
		return fmt.Errorf("read the start of process %d: %w", pid, err)
	}
	return os.WriteFile(m.pidFile(), fmt.Appendf(nil, "%d %d", pid, begin), 0o600)
}

func (m *Machine) pidFile() string { return filepath.Join(m.dir, m.Name, "pid") }

// pid is the process id of the machine's first process, or 0 if the machine does not run.
func (m *Machine) pid() int {
	text, err := os.ReadFile(m.pidFile())
	if err != nil {
		return 0
	}
	id, then, _ := strings.Cut(string(text), " ")
	pid, err := strconv.Atoi(id)
	if err != nil {
		return 0
	}
	if begin, err := startedAt(pid); err != nil || strconv.FormatUint(begin, 10) != then {
		return 0
	}
	return pid
}

// startedAt is when a process began, in clock ticks since the boot.
func startedAt(pid int) (uint64, error) {
	process, err := procfs.NewProc(pid)
	if err != nil {
		return 0, err
	}
	stat, err := process.Stat()
	if err == nil && stat.State == "Z" {
		return 0, os.ErrProcessDone
	}
	return stat.Starttime, err
}

// Kill ends the machine as a power cut does, and waits until nothing of it is left.
func (m *Machine) Kill() error {
	pid := m.pid()
	if pid == 0 {
		return nil
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("open the first process of %s: %w", m.Name, err)
	}
	defer unix.Close(process) //nolint:errcheck // Nothing was written.
	if err := unix.PidfdSendSignal(process, unix.SIGKILL, nil, 0); err != nil {
		return fmt.Errorf("kill machine %s: %w", m.Name, err)
	}
	// The first process of a namespace ends after all others of it.
	if err := waitExit(process); err != nil {
		return fmt.Errorf("kill machine %s: %w", m.Name, err)
	}
	if m.cmd != nil {
		_ = m.cmd.Wait() // Reaps it; that it was killed is known.
	}
	return nil
}

// waitExit waits until the process of a pidfd has ended.
func waitExit(process int) error {
	deadline := time.Now().Add(startTimeout)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, int(time.Until(deadline).Milliseconds())) //nolint:gosec // A file descriptor.
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return errors.New("it is still there")
		default:
			return nil
		}
	}
}

// Command is a command on the machine.
func (m *Machine) Command(ctx context.Context, argv ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(m.pid()), "--mount", "--pid", "--net", "--uts", "--"}
	return exec.CommandContext(ctx, "nsenter", append(enter, argv...)...)
}

// InNetwork is a command of this machine in the network of that one.
func (m *Machine) InNetwork(ctx context.Context, argv ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--target", strconv.Itoa(m.pid()), "--net", "--"}, argv...)...)
}

// Dial connects to an IP address as a process on the machine does.
func (m *Machine) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // And never unlocked: the thread, which is in the machine's network, ends with the goroutine.
		if err = enterNetwork(m.pid()); err == nil {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		}
	}()
	<-done
	if err != nil {
		return nil, fmt.Errorf("connect from %s: %w", m.Name, err)
	}
	return conn, nil
}

// enterNetwork has the calling thread make its sockets in the network of a process (setns(2)).
func enterNetwork(pid int) error {
	network, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer network.Close()
	return unix.Setns(int(network.Fd()), unix.CLONE_NEWNET)
}

// Stop ends a service and waits until it has ended; it stays down.
func (m *Machine) Stop(ctx context.Context, service string) error {
	return m.control(ctx, "down", service)
}

// Start starts a service that was stopped.
func (m *Machine) Start(ctx context.Context, service string) error {
	return m.control(ctx, "up", service)
}

// Pause stops a service in its tracks, as a machine that hangs does, until Continue.
func (m *Machine) Pause(ctx context.Context, service string) error {
	return m.control(ctx, "pause", service)
}

// Continue lets a service go on that was paused.
func (m *Machine) Continue(ctx context.Context, service string) error {
	return m.control(ctx, "cont", service)
}

// KillService sends SIGKILL to a service, which then starts again.
func (m *Machine) KillService(ctx context.Context, service string) error {
	return m.control(ctx, "kill", service)
}

// control tells runit what to do with a service.
func (m *Machine) control(ctx context.Context, command, service string) error {
	wait := strconv.Itoa(int(startTimeout / time.Second))
	if out, err := exec.CommandContext(ctx, "sv", "-w", wait, command, m.serviceDir(service)).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s on %s: %w: %s", command, service, m.Name, err, out)
	}
	return nil
}
