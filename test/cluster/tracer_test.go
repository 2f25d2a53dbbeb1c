package cluster_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A tracer runs a process under ptrace(2) and kills it as it enters a system call: the call is not made.
type tracer struct {
	root    string // Where its files are.
	process *os.Process
	exited  chan struct{} // Closed when the process is gone.
	err     error         // Read it after exited.

	mu    sync.Mutex
	death death
	died  string // The step before which the process was killed.
}

// A death is before the n-th step, from 1, of those that change files, or else of those that send something; with n = 0 it does not come.
type death struct {
	sending bool
	n       int
}

// changes are the system calls that change the tree of files and mounts, by their numbers.
func changes() map[uint64]string {
	return map[uint64]string{
		unix.SYS_MKDIRAT: "mkdirat", unix.SYS_UNLINKAT: "unlinkat", unix.SYS_RENAMEAT: "renameat", unix.SYS_SYMLINKAT: "symlinkat",
		unix.SYS_FCHMODAT: "fchmodat", unix.SYS_FCHOWNAT: "fchownat", unix.SYS_MOUNT: "mount", unix.SYS_UMOUNT2: "umount2",
	}
}

// trace starts a process that works on files below root.
func trace(root, path string, args []string, stderr *os.File, d death) (*tracer, error) {
	t := &tracer{root: root, exited: make(chan struct{}), death: d}
	started := make(chan error, 1)
	go func() {
		defer close(t.exited)
		runtime.LockOSThread() // One thread is the tracer (ptrace(2)). It ends with the goroutine.
		var err error
		t.process, err = os.StartProcess(path, append([]string{path}, args...), &os.ProcAttr{
			Files: []*os.File{nil, nil, stderr},
			Sys:   &syscall.SysProcAttr{Ptrace: true, Setpgid: true},
		})
		started <- err
		if err == nil {
			t.err = t.follow()
		}
	}()
	return t, <-started
}

// arm says when the process is to die, counted from now.
func (t *tracer) arm(d death) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.death = d
}

// killedAt is the step before which the process was killed, empty if it was not.
func (t *tracer) killedAt() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.died
}

// kill ends the process from outside.
func (t *tracer) kill() error {
	err := unix.Kill(t.process.Pid, unix.SIGKILL)
	<-t.exited
	if errors.Is(err, unix.ESRCH) {
		err = nil
	}
	return errors.Join(err, t.err)
}

// follow lets all threads of the process run from system call to system call, until the process is gone.
func (t *tracer) follow() error {
	pid := t.process.Pid
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
		return fmt.Errorf("wait for the start: %w", err)
	}
	if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL); err != nil {
		return fmt.Errorf("set ptrace's options: %w", err)
	}
	for thread, signal := pid, 0; ; signal = t.stopped(thread, status) {
		if err := unix.PtraceSyscall(thread, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("let thread %d go on: %w", thread, err)
		}
		var err error
		if thread, err = next(pid, &status); errors.Is(err, unix.ECHILD) {
			return nil
		} else if err != nil {
			return fmt.Errorf("wait: %w", err)
		}
	}
}

// next waits until a thread of the process group has stopped. It passes over those that are gone.
func next(group int, status *unix.WaitStatus) (thread int, err error) {
	for {
		thread, err = unix.Wait4(-group, status, unix.WALL, nil)
		if err == nil && status.Stopped() || err != nil && !errors.Is(err, unix.EINTR) {
			return thread, err
		}
	}
}

// stopped looks at what stopped a thread, and is the signal that it is to get.
func (t *tracer) stopped(thread int, status unix.WaitStatus) int {
	const systemCall = unix.SIGTRAP | 0x80 // PTRACE_O_TRACESYSGOOD.
	switch signal := status.StopSignal(); signal {
	case systemCall:
		t.count(thread)
		return 0
	case unix.SIGTRAP, unix.SIGSTOP: // A new thread, and its beginning.
		return 0
	default:
		return int(signal)
	}
}

// count takes a step into account, and kills the process if it is the one.
func (t *tracer) count(thread int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.death.n == 0 {
		return
	}
	step, sending := t.step(thread)
	if step == "" || sending != t.death.sending {
		return
	}
	if t.death.n--; t.death.n == 0 {
		t.died = step
		_ = unix.Kill(t.process.Pid, unix.SIGKILL)
	}
}

// step is the name of what a stopped thread is about to do, if it is a step, and whether it sends something.
func (t *tracer) step(thread int) (name string, sending bool) {
	call, ok := entered(thread)
	if !ok || call.number != unix.SYS_WRITE {
		return changes()[call.number], false
	}
	file, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", t.process.Pid, call.args[0]))
	switch {
	case err == nil && strings.HasPrefix(file, t.root):
		return "write", false
	case err == nil && strings.HasPrefix(file, "socket:"):
		return "send", true
	}
	return "", false // The log, or the runtime waking itself.
}

// A call is a system call that a thread is about to make.
type call struct {
	number uint64
	args   [6]uint64
}

// entered is the system call that a stopped thread is about to make; ok is false if it has made it.
func entered(thread int) (c call, ok bool) {
	var info struct { // struct ptrace_syscall_info, for an entry (linux/ptrace.h).
		op   uint8
		_    [7]uint8
		_, _ uint64
		call call
	}
	const getSyscallInfo, entry = 0x420e, 1 // PTRACE_GET_SYSCALL_INFO, PTRACE_SYSCALL_INFO_ENTRY.
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, getSyscallInfo, uintptr(thread), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	return info.call, errno == 0 && info.op == entry
}
