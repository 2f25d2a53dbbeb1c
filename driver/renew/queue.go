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
// it sleeps until the earliest time of all. What is due together starts at a bounded rate, in fair order; see [Shares].
type Queue struct {
	now     func() time.Time
	alarm   Alarm
	starts  *rate.Limiter
	workers int
	do      func(ctx context.Context, id string)

	mu      sync.Mutex
	entries map[string]*entry
	wakeAt  time.Time // What the alarm is set to.
	usage   usage
	blocked bool // A volume is due and waits for a worker.
}

// An Entry says when a volume is due, and how urgent it is then.
type Entry struct {
	At           time.Time
	Since        time.Time // The time that At was derived from; zero: that of Set.
	Begins, Ends time.Time // The life of its certificate, from its receipt; zero if it has none.
	Shares       Shares
}

// entry is an Entry in the queue.
type entry struct {
	Entry
	setAt  time.Time
	shares [kinds]share
}

// NewQueue makes a queue that calls do for at most workers volumes at once, and at most perSecond new ones a
// second. A volume leaves the queue when do is called for it. now is that of the [Clocks]
// of the alarm.
func NewQueue(
	now func() time.Time, alarm Alarm, perSecond float64, workers int, do func(ctx context.Context, id string),
) *Queue {
	return &Queue{
		now:     now,
		alarm:   alarm,
		starts:  rate.NewLimiter(rate.Limit(perSecond), workers),
		workers: workers,
		do:      do,
		entries: map[string]*entry{},
		usage:   usage{shares: map[share]use{}},
	}
}

// Set sets when the volume is due. It is also due when the wall clock is set back to before this call, or was, to before
// the entry's Since: what the time was derived from may not hold any more.
func (q *Queue) Set(id string, e Entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	// The monotonic clock stands still in suspend.
	e.At, e.Begins, e.Ends = e.At.Round(0), e.Begins.Round(0), e.Ends.Round(0)
	now := q.now()
	if now.Before(e.Since) {
		e.At = now
	}
	q.entries[id] = &entry{e, now, e.Shares.of(id)}
	if q.wakeAt.IsZero() || e.At.Before(q.wakeAt) {
		q.wake(e.At)
	}
}

// Remove forgets the volume.
func (q *Queue) Remove(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.entries, id)
}

// due reports whether the volume is due.
func (e *entry) due(now time.Time) bool { return !e.At.After(now) || now.Before(e.setAt) }

// wake sets the alarm. q.mu must be held.
func (q *Queue) wake(at time.Time) {
	q.wakeAt = at.Round(0)
	q.alarm.Set(q.wakeAt)
}

// Run calls back until ctx ends, and returns when the last call has.
func (q *Queue) Run(ctx context.Context) error {
	var calls sync.WaitGroup
	defer calls.Wait()
	for {
		if err := q.wait(ctx); err != nil {
			return err
		}
		if err := q.starts.Wait(ctx); err != nil {
			return err
		}
		// The choice comes after the waiting: something more urgent may have become due.
		id, shares, ok := q.take()
		if !ok {
			continue
		}
		calls.Go(func() {
			defer q.end(shares)
			q.do(ctx, id)
		})
	}
}

// wait returns when a volume may start.
func (q *Queue) wait(ctx context.Context) error {
	for !q.plan(q.now()) {
		if err := q.alarm.Wait(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// plan reports whether a volume may start. If none may, the alarm is set for the next one that will be due.
func (q *Queue) plan(now time.Time) (ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var next time.Time
	q.blocked = false
	for _, e := range q.entries {
		switch {
		case !e.due(now):
			if next.IsZero() || e.At.Before(next) {
				next = e.At
			}
		case q.usage.of(e.shares).allows(q.workers - q.usage.running):
			return true
		default:
			q.blocked = true
		}
	}
	q.wake(next)
	return false
}

// take takes the volume that is to start first from the queue.
func (q *Queue) take() (id string, shares [kinds]share, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.usage.age(time.Now())
	id, ok = pick(q.entries, q.usage, q.workers, q.now())
	if !ok {
		return "", shares, false
	}
	shares = q.entries[id].shares
	delete(q.entries, id)
	q.usage.start(shares)
	return id, shares, true
}

// end frees the worker of a volume.
func (q *Queue) end(shares [kinds]share) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.usage.end(shares)
	if q.blocked {
		q.wake(q.now())
	}
}
