package renew_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/test/alarm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type calls struct {
	mu  sync.Mutex
	ids []string
	at  []time.Duration
}

func (c *calls) add(id string, at time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ids, c.at = append(c.ids, id), append(c.at, at)
}

// seen is what was called so far.
func (c *calls) seen() ([]string, []time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.ids), slices.Clone(c.at)
}

// run runs a queue in a bubble, and what the callback of body needs.
func run(t *testing.T, perSecond float64, workers int, do func(context.Context, string), body func(q *renew.Queue, a *alarm.Alarm)) {
	synctest.Test(t, func(t *testing.T) {
		runBy(t, &alarm.Clock{}, perSecond, workers, do, body)
	})
}

// runBy does the same in the test's own bubble, by a clock.
func runBy(t *testing.T, clock *alarm.Clock, perSecond float64, workers int, do func(context.Context, string), body func(q *renew.Queue, a *alarm.Alarm)) {
	ctx, cancel := context.WithCancel(t.Context())
	a := clock.New()
	q := renew.NewQueue(clock.Now, a, perSecond, workers, do)
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	body(q, a)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
}

func TestTheQueueSleepsUntilTheDeadline(t *testing.T) {
	var got calls
	var begin time.Time
	do := func(_ context.Context, id string) { got.add(id, time.Since(begin)) }
	run(t, 1000, 4, do, func(q *renew.Queue, a *alarm.Alarm) {
		begin = time.Now()
		q.Set("late", renew.Entry{At: begin.Add(3 * time.Hour), Begins: begin, Ends: begin.Add(4 * time.Hour)})
		q.Set("soon", renew.Entry{At: begin.Add(time.Hour), Begins: begin, Ends: begin.Add(2 * time.Hour)})
		q.Set("moved", renew.Entry{At: begin.Add(time.Hour), Begins: begin, Ends: begin.Add(2 * time.Hour)})
		q.Set("moved", renew.Entry{At: begin.Add(2 * time.Hour), Begins: begin, Ends: begin.Add(2 * time.Hour)})
		q.Set("gone", renew.Entry{At: begin.Add(time.Hour), Begins: begin, Ends: begin.Add(2 * time.Hour)})
		q.Remove("gone")
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		ids, at := got.seen()
		if !slices.Equal(ids, []string{"soon", "moved", "late"}) || !slices.Equal(at, []time.Duration{time.Hour, 2 * time.Hour, 3 * time.Hour}) {
			t.Errorf("called %v at %v", ids, at)
		}
		if waits := a.Waits(); waits > 5 {
			t.Errorf("woken %d times in a day for three volumes", waits)
		}
	})
}

func TestOverdueVolumesStartByTheLifeThatIsLeftAtABoundedRate(t *testing.T) {
	var got calls
	var begin time.Time
	do := func(_ context.Context, id string) { got.add(id, time.Since(begin)) }
	run(t, 10, 1, do, func(q *renew.Queue, _ *alarm.Alarm) {
		begin = time.Now()
		q.Set("warm-up", renew.Entry{At: begin, Begins: begin, Ends: begin})
		synctest.Wait()
		for i, id := range []string{"c", "a", "d", "b"} {
			q.Set(id, renew.Entry{
				At: begin.Add(-time.Duration(i) * time.Minute), Begins: begin.Add(-time.Hour), Ends: begin.Add(time.Duration(id[0]) * time.Minute),
			})
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		ids, at := got.seen()
		if !slices.Equal(ids, []string{"warm-up", "a", "b", "c", "d"}) {
			t.Errorf("order: %v", ids)
		}
		if last := at[len(at)-1]; last < 400*time.Millisecond-time.Millisecond || last > 500*time.Millisecond {
			t.Errorf("four starts at ten a second took %s", last)
		}
	})
}

func TestNoMoreWorkersThanAllowed(t *testing.T) {
	var mu sync.Mutex
	var now, most, total int
	do := func(context.Context, string) {
		mu.Lock()
		now++
		total++
		most = max(most, now)
		mu.Unlock()
		time.Sleep(time.Second)
		mu.Lock()
		now--
		mu.Unlock()
	}
	run(t, 1e6, 3, do, func(q *renew.Queue, _ *alarm.Alarm) {
		for i := range 20 {
			q.Set(fmt.Sprint(i), renew.Entry{At: time.Now()})
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if most != 3 || total != 20 {
			t.Errorf("%d at once, %d in all", most, total)
		}
	})
}

// A volume that is due in an hour, after 20 minutes of it: the clock is set forward or back.
func TestASetClockIsLookedAtAgain(t *testing.T) {
	for name, row := range map[string]struct {
		jump, left time.Duration
	}{
		"forward, not to the deadline":            {30 * time.Minute, 10 * time.Minute},
		"forward, beyond the deadline":            {50 * time.Minute, 0},
		"back, not to before the deadline is set": {-10 * time.Minute, 50 * time.Minute},
		"back, to before the deadline was set":    {-30 * time.Minute, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got calls
				clock := &alarm.Clock{}
				do := func(_ context.Context, id string) { got.add(id, 0) }
				runBy(t, clock, 1000, 1, do, func(q *renew.Queue, _ *alarm.Alarm) {
					begin := clock.Now()
					q.Set("a", renew.Entry{At: begin.Add(time.Hour), Begins: begin, Ends: begin.Add(2 * time.Hour)})
					time.Sleep(20 * time.Minute)
					clock.Jump(row.jump)
					if row.left > 0 {
						time.Sleep(row.left - time.Second)
						synctest.Wait()
						if ids, _ := got.seen(); len(ids) != 0 {
							t.Error("called too early")
						}
						time.Sleep(time.Second)
					}
					synctest.Wait()
					if ids, _ := got.seen(); len(ids) != 1 {
						t.Errorf("called %d times", len(ids))
					}
				})
			})
		})
	}
}

// What a time was derived from at noon does not hold if the clock is set back to before noon until the time is set.
func TestAClockThatWasSetBackBeforeATimeIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got calls
		clock := &alarm.Clock{}
		do := func(_ context.Context, id string) { got.add(id, 0) }
		runBy(t, clock, 1000, 1, do, func(q *renew.Queue, _ *alarm.Alarm) {
			since := clock.Now()
			clock.Jump(-time.Minute)
			q.Set("a", renew.Entry{At: since.Add(time.Hour), Since: since})
			q.Set("b", renew.Entry{At: since.Add(time.Hour), Since: clock.Now()})
			synctest.Wait()
			if ids, _ := got.seen(); len(ids) != 1 || ids[0] != "a" {
				t.Errorf("called for %q", ids)
			}
		})
	})
}

// While all that is due waits for workers, the queue sleeps, and so does it after that.
func TestAQueueThatIsBlockedSleeps(t *testing.T) {
	shares := renew.Shares{Namespace: "shop", Pod: "a", Issuer: "silent"}
	do := func(context.Context, string) { time.Sleep(time.Minute) }
	run(t, 1e6, 4, do, func(q *renew.Queue, a *alarm.Alarm) {
		for i := range 20 {
			q.Set(fmt.Sprint(i), renew.Entry{At: time.Now(), Shares: shares})
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if waits := a.Waits(); waits > 50 {
			t.Errorf("woken %d times for 20 volumes", waits)
		}
	})
}
