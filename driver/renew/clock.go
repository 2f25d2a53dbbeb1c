package renew

import (
	"context"
	"time"
)

// A Clock is an [Alarm] that is closed after use.
type Clock interface {
	Alarm
	Close() error
}

// Clocks say what time it is, and make the clocks of queues. The zero Clocks are those of the system.
type Clocks struct {
	// Wall returns the time of the wall clock, which may be set; nil: [time.Now]. It is what dates of certificates and
	// recorded times are compared with. What only measures how much time goes by, such as the bound of a call, goes by
	// time.Now and time.Since: the monotonic clock is never set.
	Wall func() time.Time

	New func() (Clock, error) // Makes a clock that rings by Wall; nil: a [WallClock].
}

// Now returns the time of the wall clock alone, as certificates and records have it: the monotonic clock stands still
// in suspend.
func (c Clocks) Now() time.Time {
	if c.Wall == nil {
		return time.Now().Round(0)
	}
	return c.Wall().Round(0)
}

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
	if c.New == nil {
		c.New = func() (Clock, error) { return NewWallClock() }
	}
	clock, err := c.New()
	if err != nil {
		return nil, err
	}
	w := NewWatchdog(c.Now, clock, do)
	return &ClockQueue{NewQueue(c.Now, w, perSecond, workers, w.Do), clock, w}, nil
}

// Stuck returns why the queue makes no progress; see [Watchdog.Stuck].
func (q *ClockQueue) Stuck(limit time.Duration) error { return q.watchdog.Stuck(limit) }

// Close frees the clock.
func (q *ClockQueue) Close() error { return q.clock.Close() }
