package renew

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// A Watchdog knows whether a queue makes progress: it stands between the queue and its alarm and calls. Make one with
// [NewWatchdog].
type Watchdog struct {
	now   func() time.Time
	alarm Alarm
	do    func(ctx context.Context, id string)

	mu      sync.Mutex
	ringsAt time.Time               // When the alarm is to ring; zero: it is not set.
	waiting bool                    // The queue waits for the alarm.
	moved   time.Time               // When the queue last began to wait, was woken up, or began or ended a call.
	calls   map[*time.Time]struct{} // When the calls under way began.
}

// NewWatchdog makes a watchdog of a queue with the alarm and calls of do. Give the queue the watchdog as its alarm, and
// [Watchdog.Do]. now is that of the [Clocks] of the alarm.
func NewWatchdog(now func() time.Time, alarm Alarm, do func(ctx context.Context, id string)) *Watchdog {
	return &Watchdog{now: now, alarm: alarm, do: do, calls: map[*time.Time]struct{}{}}
}

// Set implements [Alarm].
func (w *Watchdog) Set(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ringsAt = at.Round(0)
	w.alarm.Set(at)
}

// Wait implements [Alarm].
func (w *Watchdog) Wait(ctx context.Context) error {
	w.move(func() { w.waiting = true })
	err := w.alarm.Wait(ctx)
	w.move(func() {
		if w.waiting = false; !w.ringsAt.After(w.now()) { // It has rung.
			w.ringsAt = time.Time{}
		}
	})
	return err
}

// Do calls what the queue is to call.
func (w *Watchdog) Do(ctx context.Context, id string) {
	begin := time.Now()
	w.move(func() { w.calls[&begin] = struct{}{} })
	defer w.move(func() { delete(w.calls, &begin) })
	w.do(ctx, id)
}

// move records progress.
func (w *Watchdog) move(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	w.moved = time.Now()
}

// Stuck returns why the queue makes no progress for longer than limit; nil: it does, or has nothing to do. Each call
// must have ended within the limit. A time that the system was suspended does not count.
func (w *Watchdog) Stuck(limit time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for begin := range w.calls {
		if took := time.Since(*begin); took > limit {
			return fmt.Errorf("a call has not ended for %s", took.Round(time.Second))
		}
	}
	still := time.Since(w.moved)
	switch late := w.now().Sub(w.ringsAt); {
	case w.moved.IsZero() || still <= limit: // It does not run yet, or moves.
		return nil
	case !w.waiting:
		return fmt.Errorf("the queue has stood still for %s", still.Round(time.Second))
	case !w.ringsAt.IsZero() && late > limit:
		return fmt.Errorf("the alarm is late by %s", late.Round(time.Second))
	}
	return nil
}
