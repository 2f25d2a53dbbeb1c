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
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAt(t *testing.T) {
	received := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	rows := []struct {
		lifetime, before time.Duration
		earliest, latest time.Duration // After receipt.
	}{
		{time.Hour, 0, 36 * time.Minute, 40 * time.Minute},
		{time.Hour, 10 * time.Minute, 45 * time.Minute, 50 * time.Minute},
		{time.Hour, time.Hour, 36 * time.Minute, 40 * time.Minute},
		{time.Hour, 2 * time.Hour, 36 * time.Minute, 40 * time.Minute},
		{30 * time.Second, 0, 18 * time.Second, 20 * time.Second},
	}
	for _, row := range rows {
		spread := map[time.Time]bool{}
		for i := range 100 {
			at := renew.At(fmt.Sprint("csi-", i), received, received.Add(row.lifetime), row.before)
			if wait := at.Sub(received); wait < row.earliest || wait > row.latest {
				t.Errorf("lifetime %s, before %s: after %s, want %s to %s", row.lifetime, row.before, wait, row.earliest, row.latest)
			}
			spread[at.Truncate(row.lifetime/1000)] = true
		}
		if len(spread) < 30 {
			t.Errorf("lifetime %s: 100 volumes are due at %d times only", row.lifetime, len(spread))
		}
	}
	first, again := renew.At("a", received, received.Add(time.Hour), 0), renew.At("a", received, received.Add(time.Hour), 0)
	if first != again {
		t.Error("the spread is not a function of the volume")
	}
}

func TestWithin(t *testing.T) {
	day := func(d, hour int) time.Time { return time.Date(2026, 3, d, hour, 0, 0, 0, time.UTC) } // March 1st is a Sunday.
	night := volume.Window{Begins: 2 * time.Hour, Length: 2 * time.Hour}
	weekend := volume.Window{Days: []time.Weekday{time.Saturday, time.Sunday}, Begins: 22 * time.Hour, Length: 6 * time.Hour}
	for name, row := range map[string]struct {
		window                      volume.Window
		received, planned, notAfter time.Time
		from, to                    time.Time // from == to: that very time.
	}{
		"in the window":                 {night, day(1, 0), day(21, 3), day(31, 0), day(21, 3), day(21, 3)},
		"later the next night":          {night, day(1, 0), day(20, 20), day(31, 0), day(21, 2), day(21, 4)},
		"sooner the night before":       {night, day(1, 0), day(21, 6), day(31, 0), day(21, 2), day(21, 4)},
		"the end leaves no time":        {night, day(1, 5), day(1, 21), day(2, 5), day(1, 21), day(1, 21)},
		"cut by what must be left":      {night, day(1, 5), day(1, 23), day(2, 6), day(2, 2), day(2, 2).Add(30 * time.Minute)},
		"an hour's certificate":         {night, day(1, 5), day(1, 5).Add(40 * time.Minute), day(1, 6), day(1, 5).Add(40 * time.Minute), day(1, 5).Add(40 * time.Minute)},
		"at weekends":                   {weekend, day(1, 0), day(19, 12), day(31, 0), day(21, 22), day(22, 4)},
		"of the day on which it begins": {weekend, day(1, 0), day(16, 2), day(31, 0), day(16, 2), day(16, 2)},
	} {
		t.Run(name, func(t *testing.T) {
			spread := map[time.Time]bool{}
			for i := range 100 {
				at := renew.Within(row.window, fmt.Sprint("csi-", i), row.received, row.planned, row.notAfter)
				if at.Before(row.from) || at.After(row.to) {
					t.Fatalf("%s, want %s to %s", at, row.from, row.to)
				}
				spread[at] = true
			}
			if exact := row.from.Equal(row.to); exact != (len(spread) == 1) {
				t.Errorf("100 volumes at %d times", len(spread))
			}
		})
	}
}

func TestBackoff(t *testing.T) {
	rows := []struct {
		kind  signer.Kind
		count int
		want  time.Duration
		alone time.Duration // Without a valid certificate.
	}{
		{signer.Unavailable, 1, 2 * time.Second, 2 * time.Second},
		{signer.Unavailable, 2, 4 * time.Second, 4 * time.Second},
		{signer.Unavailable, 4, 16 * time.Second, 16 * time.Second},
		{signer.Unavailable, 5, 32 * time.Second, 30 * time.Second},
		{signer.Unavailable, 9, 5 * time.Minute, 30 * time.Second},
		{signer.NotYet, 1000, 5 * time.Minute, 30 * time.Second},
		{signer.Denied, 1, time.Minute, time.Minute},
		{signer.Failed, 3, 4 * time.Minute, 4 * time.Minute},
		{signer.Invalid, 7, time.Hour, time.Hour},
		{signer.Denied, 1000, time.Hour, time.Hour},
	}
	for _, row := range rows {
		for served, want := range map[bool]time.Duration{true: row.want, false: row.alone} {
			if got := renew.Backoff("csi-1", row.kind, row.count, served); got < want || got > want*5/4 {
				t.Errorf("%s, failure %d, served %v: %s, want %s and up to a quarter more", row.kind, row.count, served, got, want)
			}
		}
	}
	if renew.Backoff("a", signer.Denied, 1, true) == renew.Backoff("b", signer.Denied, 1, true) {
		t.Error("two volumes try again at the same time")
	}
}

// A fakeAlarm rings by the bubble's clock.
type fakeAlarm struct {
	mu    sync.Mutex
	timer *time.Timer
	rings chan struct{}
	waits int
}

func newFakeAlarm() *fakeAlarm { return &fakeAlarm{rings: make(chan struct{}, 1)} }

func (a *fakeAlarm) Set(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.timer != nil {
		a.timer.Stop()
	}
	if !at.IsZero() {
		a.timer = time.AfterFunc(time.Until(at), a.ring)
	}
}

func (a *fakeAlarm) ring() {
	select {
	case a.rings <- struct{}{}:
	default:
	}
}

func (a *fakeAlarm) Wait(ctx context.Context) error {
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

func (a *fakeAlarm) waited() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.waits
}

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
func run(t *testing.T, perSecond float64, workers int, do func(context.Context, string), body func(q *renew.Queue, alarm *fakeAlarm)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		alarm := newFakeAlarm()
		q := renew.NewQueue(alarm, perSecond, workers, do)
		done := make(chan error, 1)
		go func() { done <- q.Run(ctx) }()
		body(q, alarm)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestTheQueueSleepsUntilTheDeadline(t *testing.T) {
	var got calls
	var begin time.Time
	do := func(_ context.Context, id string) { got.add(id, time.Since(begin)) }
	run(t, 1000, 4, do, func(q *renew.Queue, alarm *fakeAlarm) {
		begin = time.Now()
		q.Set("late", begin.Add(3*time.Hour), begin.Add(4*time.Hour))
		q.Set("soon", begin.Add(time.Hour), begin.Add(2*time.Hour))
		q.Set("moved", begin.Add(time.Hour), begin.Add(2*time.Hour))
		q.Set("moved", begin.Add(2*time.Hour), begin.Add(2*time.Hour))
		q.Set("gone", begin.Add(time.Hour), begin.Add(2*time.Hour))
		q.Remove("gone")
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		ids, at := got.seen()
		if !slices.Equal(ids, []string{"soon", "moved", "late"}) || !slices.Equal(at, []time.Duration{time.Hour, 2 * time.Hour, 3 * time.Hour}) {
			t.Errorf("called %v at %v", ids, at)
		}
		if waits := alarm.waited(); waits > 12 {
			t.Errorf("woken %d times in a day for three volumes", waits)
		}
	})
}

func TestOverdueVolumesStartSoonestExpiryFirstAtABoundedRate(t *testing.T) {
	var got calls
	var begin time.Time
	do := func(_ context.Context, id string) { got.add(id, time.Since(begin)) }
	run(t, 10, 1, do, func(q *renew.Queue, _ *fakeAlarm) {
		begin = time.Now()
		q.Set("warm-up", begin, begin)
		synctest.Wait()
		for i, id := range []string{"c", "a", "d", "b"} {
			q.Set(id, begin.Add(-time.Duration(i)*time.Minute), begin.Add(time.Duration(id[0])*time.Minute))
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
	run(t, 1e6, 3, do, func(q *renew.Queue, _ *fakeAlarm) {
		for i := range 20 {
			q.Set(fmt.Sprint(i), time.Now(), time.Now())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if most != 3 || total != 20 {
			t.Errorf("%d at once, %d in all", most, total)
		}
	})
}

func TestASetClockIsLookedAtAgain(t *testing.T) {
	var got calls
	begin := time.Now()
	do := func(_ context.Context, id string) { got.add(id, 0) }
	run(t, 1000, 1, do, func(q *renew.Queue, alarm *fakeAlarm) {
		begin = time.Now()
		q.Set("a", begin.Add(time.Hour), begin.Add(2*time.Hour))
		synctest.Wait()
		alarm.ring() // The clock was set, but not to a time after the deadline.
		synctest.Wait()
		if ids, _ := got.seen(); len(ids) != 0 {
			t.Error("called too early")
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if ids, _ := got.seen(); len(ids) != 1 {
			t.Error("not called")
		}
	})
}

func TestTheWallClockRings(t *testing.T) {
	w, err := renew.NewWallClock()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}()
	at := time.Now().Add(50 * time.Millisecond)
	w.Set(at)
	if err := w.Wait(t.Context()); err != nil || time.Now().Before(at) {
		t.Errorf("Wait: %v, at %s of %s", err, time.Now(), at)
	}
	w.Set(time.Now().Add(-time.Hour))
	if err := w.Wait(t.Context()); err != nil {
		t.Errorf("a time gone by: %v", err)
	}
	w.Set(time.Time{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := w.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("not set: %v", err)
	}
	w.Set(time.Now())
	if err := w.Wait(t.Context()); err != nil {
		t.Errorf("after a wait that was given up: %v", err)
	}
}

func TestTheWallClockRingsForALaterSet(t *testing.T) {
	w, err := renew.NewWallClock()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}()
	w.Set(time.Now().Add(time.Hour))
	done := make(chan error)
	go func() { done <- w.Wait(t.Context()) }()
	w.Set(time.Now().Add(time.Millisecond))
	if err := <-done; err != nil {
		t.Error(err)
	}
}
