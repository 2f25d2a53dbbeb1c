package renew

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// An Alarm rings when the wall clock reaches a time.
type Alarm interface {
	// Set says when to ring next, in place of what was set before. The zero time: not at all. A time gone by: now.
	Set(at time.Time)
	// Wait returns nil when the alarm rings, and when the wall clock is set; an error when ctx ends.
	Wait(ctx context.Context) error
}

// A Queue calls back for each volume when it is due. It has no goroutine, timer or memory traffic per volume:
// it sleeps until the earliest time of all. What is due together starts at a bounded rate, soonest expiry first.
type Queue struct {
	alarm   Alarm
	starts  *rate.Limiter
	workers chan struct{}
	do      func(ctx context.Context, id string)

	mu      sync.Mutex
	entries map[string]entry
	wakeAt  time.Time // What the alarm is set to.
}

type entry struct {
	at, expiry time.Time
}

// NewQueue makes a queue that calls do for at most workers volumes at once, and at most perSecond new ones a
// second. A volume leaves the queue when do is called for it.
func NewQueue(alarm Alarm, perSecond float64, workers int, do func(ctx context.Context, id string)) *Queue {
	return &Queue{
		alarm:   alarm,
		starts:  rate.NewLimiter(rate.Limit(perSecond), workers),
		workers: make(chan struct{}, workers),
		do:      do,
		entries: map[string]entry{},
	}
}

// Set sets when the volume is due, and when its certificate ends: zero if it has none.
func (q *Queue) Set(id string, at, expiry time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.entries[id] = entry{at.Round(0), expiry.Round(0)} // Wall clock: the monotonic clock stands still in suspend.
	if q.wakeAt.IsZero() || at.Before(q.wakeAt) {
		q.wake(at)
	}
}

// Remove forgets the volume.
func (q *Queue) Remove(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.entries, id)
}

// before reports whether the volume is more urgent than another that is due.
func (e entry) before(other entry) bool {
	switch {
	case e.expiry.IsZero():
		return false
	case other.expiry.IsZero():
		return true
	}
	return e.expiry.Before(other.expiry)
}

func (q *Queue) wake(at time.Time) {
	q.wakeAt = at.Round(0)
	q.alarm.Set(q.wakeAt)
}

// Run calls back until ctx ends, and returns when the last call has.
func (q *Queue) Run(ctx context.Context) error {
	var calls sync.WaitGroup
	defer calls.Wait()
	for {
		if err := q.waitToStart(ctx); err != nil {
			return err
		}
		// The choice comes after the waiting: something more urgent may have become due.
		id, ok := q.pop(time.Now())
		if !ok {
			<-q.workers
			continue
		}
		calls.Go(func() {
			defer func() { <-q.workers }()
			q.do(ctx, id)
		})
	}
}

// waitToStart returns when a volume is due, may start, and has a worker.
func (q *Queue) waitToStart(ctx context.Context) error {
	if err := q.wait(ctx); err != nil {
		return err
	}
	if err := q.starts.Wait(ctx); err != nil {
		return err
	}
	select {
	case q.workers <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wait returns when a volume is due.
func (q *Queue) wait(ctx context.Context) error {
	for !q.plan(time.Now()) {
		if err := q.alarm.Wait(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// plan reports whether a volume is due; if none is, the alarm is set for the first that will be.
func (q *Queue) plan(now time.Time) (due bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var first time.Time
	for _, e := range q.entries {
		if first.IsZero() || e.at.Before(first) {
			first = e.at
		}
	}
	if !first.IsZero() && !first.After(now) {
		return true
	}
	q.wake(first)
	return false
}

// pop takes the volume that expires first of those that are due; those without a certificate come last: nothing of
// theirs ends.
func (q *Queue) pop(now time.Time) (id string, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for candidate, e := range q.entries {
		if !e.at.After(now) && (!ok || e.before(q.entries[id])) {
			id, ok = candidate, true
		}
	}
	delete(q.entries, id)
	return id, ok
}
