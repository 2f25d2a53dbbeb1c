// Package alarm has a wall clock that tests set, and its alarms. In a bubble (testing/synctest) they go by its time.
package alarm

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// A Clock is a wall clock that can be set. The zero Clock shows the time of [time.Now], and is ready for use.
type Clock struct {
	mu     sync.Mutex
	ahead  time.Duration
	alarms map[*Alarm]struct{}
}

// Now returns the time that it shows.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Round(0).Add(c.ahead)
}

// Jump sets it forward by d, or back. All its alarms ring, and are set to the same times as before: so does the kernel
// with those of the wall clock (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET).
func (c *Clock) Jump(d time.Duration) {
	c.mu.Lock()
	c.ahead += d
	all := slices.Collect(maps.Keys(c.alarms))
	c.mu.Unlock()
	for _, a := range all {
		a.mu.Lock()
		a.start()
		a.mu.Unlock()
		a.Ring()
	}
}

// New makes an alarm that is not set.
func (c *Clock) New() *Alarm {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.alarms == nil {
		c.alarms = map[*Alarm]struct{}{}
	}
	a := &Alarm{clock: c, rings: make(chan struct{}, 1)}
	c.alarms[a] = struct{}{}
	return a
}

// remove removes an alarm.
func (c *Clock) remove(a *Alarm) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.alarms, a)
}

// An Alarm rings by a clock. It implements renew.Alarm. Make one with [New] or [Clock.New].
type Alarm struct {
	clock *Clock
	mu    sync.Mutex
	at    time.Time
	timer *time.Timer
	rings chan struct{}
	waits int
}

// New makes an alarm that is not set, by a clock that is never set.
func New() *Alarm { return new(Clock).New() }

// Set implements renew.Alarm.
func (a *Alarm) Set(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = at
	a.start()
}

// start starts the timer. a.mu must be held.
func (a *Alarm) start() {
	if a.timer != nil {
		a.timer.Stop()
	}
	if !a.at.IsZero() {
		a.timer = time.AfterFunc(a.at.Sub(a.clock.Now()), a.Ring)
	}
}

// Ring rings now, as when the wall clock is set.
func (a *Alarm) Ring() {
	select {
	case a.rings <- struct{}{}:
	default:
	}
}

// Wait implements renew.Alarm.
func (a *Alarm) Wait(ctx context.Context) error {
	a.mu.Lock()
	a.waits++
	a.mu.Unlock()
	select {
	case <-a.rings:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Waits returns how often Wait was called.
func (a *Alarm) Waits() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.waits
}

// Close implements renew.Clock.
func (a *Alarm) Close() error {
	a.clock.remove(a)
	a.Set(time.Time{})
	return nil
}
