package renew

import (
	"context"
	"time"
)

// Now returns the time of the wall clock alone, as certificates and records have it: the monotonic clock stands still in
// suspend.
func Now() time.Time { return time.Now().Round(0) }

// A ClockQueue is a [Queue] with a wall clock and a watchdog of its own. Close it when it has run.
type ClockQueue struct {
	*Queue
	clock    *WallClock
	watchdog *Watchdog
}

// NewClockQueue makes a queue as [NewQueue] does.
func NewClockQueue(perSecond float64, workers int, do func(ctx context.Context, id string)) (*ClockQueue, error) {
	clock, err := NewWallClock()
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
