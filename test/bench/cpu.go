package main

import (
	"fmt"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// A cpuTime is time on the processors, in a process and in the kernel for it.
type cpuTime struct{ user, system time.Duration }

func (c cpuTime) total() time.Duration { return c.user + c.system }

func (c cpuTime) minus(o cpuTime) cpuTime { return cpuTime{c.user - o.user, c.system - o.system} }

func (c cpuTime) plus(o cpuTime) cpuTime { return cpuTime{c.user + o.user, c.system + o.system} }

func (c cpuTime) by(n int) cpuTime {
	return cpuTime{c.user / time.Duration(n), c.system / time.Duration(n)}
}

// ownCPU is the bench's own time since it began.
func ownCPU() (cpuTime, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return cpuTime{}, fmt.Errorf("read the bench's processor time: %w", err)
	}
	return cpuTime{time.Duration(u.Utime.Nano()), time.Duration(u.Stime.Nano())}, nil
}

// spent is the bench's own time in f.
func spent(f func() error) (cpuTime, error) {
	before, err := ownCPU()
	if err != nil {
		return cpuTime{}, err
	}
	if err := f(); err != nil {
		return cpuTime{}, err
	}
	after, err := ownCPU()
	return after.minus(before), err
}

// cpu is the time of the driver's process since it began. The sum is exact (clock_getcpuclockid(3)); /proc/pid/stat,
// whose unit is 10 ms, says how it is shared between the process and the kernel.
func (d *driver) cpu() (cpuTime, error) {
	const processClock = 2 // CPUCLOCK_SCHED, of a process (linux/posix-timers.h).
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^d.pid<<3|processClock), &t); err != nil {
		return cpuTime{}, fmt.Errorf("read the processor time of %s: %w", d.name, err)
	}
	stat, err := d.stat()
	if err != nil {
		return cpuTime{}, err
	}
	share := 1.0
	if ticks := stat.UTime + stat.STime; ticks > 0 {
		share = float64(stat.UTime) / float64(ticks)
	}
	user := time.Duration(float64(t.Nano()) * share)
	return cpuTime{user, time.Duration(t.Nano()) - user}, nil
}

// spent is the time of the driver's process in f.
func (d *driver) spent(f func() error) (cpuTime, error) {
	before, err := d.cpu()
	if err != nil {
		return cpuTime{}, err
	}
	if err := f(); err != nil {
		return cpuTime{}, err
	}
	after, err := d.cpu()
	return after.minus(before), err
}

func (d *driver) stat() (procfs.ProcStat, error) {
	p, err := procfs.NewProc(d.pid)
	if err != nil {
		return procfs.ProcStat{}, fmt.Errorf("find %s: %w", d.name, err)
	}
	return p.Stat()
}

// files returns how many descriptors the driver's process has open.
func (d *driver) files() (float64, error) {
	p, err := procfs.NewProc(d.pid)
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", d.name, err)
	}
	n, err := p.FileDescriptorsLen()
	return float64(n), err
}

// resident is the memory that the driver's process has, in bytes.
func (d *driver) resident() (float64, error) {
	p, err := procfs.NewProc(d.pid)
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", d.name, err)
	}
	status, err := p.NewStatus()
	return float64(status.VmRSS), err
}
