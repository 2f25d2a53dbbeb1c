package renew

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A WallClock is an [Alarm] on the system's wall clock, which goes on in suspend. Close it after use.
type WallClock struct {
	timer *os.File
}

// NewWallClock makes an alarm that is not set.
func NewWallClock() (*WallClock, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create a timer: %w", err)
	}
	return &WallClock{timer: os.NewFile(uintptr(fd), "timerfd")}, nil
}

// Set implements [Alarm].
func (w *WallClock) Set(at time.Time) {
	var spec unix.ItimerSpec
	if !at.IsZero() {
		// An absolute time that is over rings at once; zero would disarm (timerfd_create(2)). A pod's annotation may
		// name a year beyond those that fit into an int64 of nanoseconds.
		spec.Value = unix.Timespec{Sec: max(at.Unix(), 0), Nsec: max(int64(at.Nanosecond()), 1)}
	}
	raw, err := w.timer.SyscallConn()
	if err != nil {
		return // Closed: nobody waits.
	}
	_ = raw.Control(func(fd uintptr) {
		const flags = unix.TFD_TIMER_ABSTIME | unix.TFD_TIMER_CANCEL_ON_SET
		// A clock that is set makes the next read end with ECANCELED. A settime that comes before that gets the error
		// in its place (linux fs/timerfd.c, timerfd_setup): then the alarm rings at once.
		if errors.Is(unix.TimerfdSettime(int(fd), flags, &spec, nil), unix.ECANCELED) {
			_ = unix.TimerfdSettime(int(fd), flags, &unix.ItimerSpec{Value: unix.Timespec{Nsec: 1}}, nil)
		}
	})
}

// Wait implements [Alarm]. One goroutine may wait at a time.
func (w *WallClock) Wait(ctx context.Context) error {
	if err := w.timer.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("wait for the timer: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = w.timer.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var expirations [8]byte
	_, err := w.timer.Read(expirations[:])
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && !errors.Is(err, unix.ECANCELED):
		return fmt.Errorf("wait for the timer: %w", err)
	}
	return nil
}

// Close frees the timer.
func (w *WallClock) Close() error { return w.timer.Close() }
