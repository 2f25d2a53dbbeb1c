package renew

import (
	"context"
	"time"
)

// Now returns the time of the wall clock alone, as certificates and records have it: the monotonic clock stands still
// in suspend.
func Now() time.Time { return time.Now().Round(0) }

// A Clock is an [Alarm] that is closed after use.
type Clock interface {
	Alarm
	Close() error
}

// Clocks makes the clocks of queues. nil Clocks make wall clocks.
type Clocks func() (Clock, error)

// A ClockQueue is a [Queue] with a clock and a watchdog of its own. Close it when it has run.
type ClockQueue struct {
	*Queue
	clock    Clock
	watchdog *Watchdog
}

// NewQueue makes a queue as the function [NewQueue] does.
func (c Clocks) NewQueue(
	perSecond float64, workers int, do func(ctx context.Context, id string),
) (*ClockQueue, error) {
	if c == nil {
		c = func() (Clock, error) { return NewWallClock() }
	}
	clock, err := c()
	if err != nil {
		return nil, err
	}
	w := NewWatchdog(clock, do)
	return &ClockQueue{NewQueue(w, perSecond, workers, w.Do), clock, w}, nil
}

// Stuck returns why the queue makes no progress; see [Watchdog.Stuck].
func (q *ClockQueue) Stuck(limit time.Duration) error { return q.watchdog.Stuck(limit) }

// Close frees the clock.
func (q *ClockQueue) Close() error { return q.clock.Close() }
