package renew_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/test/alarm"
)

const limit = 10 * time.Minute

// watch runs a queue with one worker and a watchdog in a bubble.
func watch(t *testing.T, do func(context.Context, string), body func(q *renew.Queue, w *renew.Watchdog, a *alarm.Alarm)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		a := alarm.New()
		w := renew.NewWatchdog(time.Now, a, do)
		q := renew.NewQueue(time.Now, w, 10, 1, w.Do)
		if err := w.Stuck(limit); err != nil {
			t.Errorf("before it runs: %v", err)
		}
		done := make(chan error, 1)
		go func() { done <- q.Run(ctx) }()
		body(q, w, a)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
}

// stuck demands an error with the words, or none if they are empty.
func stuck(t *testing.T, w *renew.Watchdog, words string) {
	t.Helper()
	synctest.Wait()
	if err := w.Stuck(limit); (err == nil) != (words == "") || err != nil && !strings.Contains(err.Error(), words) {
		t.Errorf("%v, want %q", err, words)
	}
}

// A queue that sleeps for long, or whose calls take long but end, is not stuck: volumes of a silent signer wait for their
// turn longer than the limit.
func TestAQueueThatIsNotStuck(t *testing.T) {
	silent := func(ctx context.Context, _ string) {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		<-ctx.Done()
	}
	watch(t, silent, func(q *renew.Queue, w *renew.Watchdog, _ *alarm.Alarm) {
		time.Sleep(24 * time.Hour)
		stuck(t, w, "")
		for i := range 30 {
			q.Set(string(rune('a'+i)), renew.Entry{At: time.Now()})
		}
		for range 60 {
			time.Sleep(29 * time.Second)
			stuck(t, w, "")
		}
		q.Set("later", renew.Entry{At: time.Now().Add(time.Hour)})
		time.Sleep(time.Hour + time.Second)
		stuck(t, w, "")
	})
}

func TestACallThatDoesNotEnd(t *testing.T) {
	watch(t, func(ctx context.Context, _ string) { <-ctx.Done() }, func(q *renew.Queue, w *renew.Watchdog, _ *alarm.Alarm) {
		q.Set("a", renew.Entry{At: time.Now()})
		time.Sleep(limit)
		stuck(t, w, "")
		time.Sleep(time.Second)
		stuck(t, w, "a call has not ended for 10m1s")
	})
}

func TestAnAlarmThatDoesNotRing(t *testing.T) {
	watch(t, func(context.Context, string) {}, func(q *renew.Queue, w *renew.Watchdog, a *alarm.Alarm) {
		q.Set("a", renew.Entry{At: time.Now().Add(time.Hour)})
		synctest.Wait()
		a.Set(time.Time{}) // As if the kernel had lost it.
		time.Sleep(time.Hour + limit)
		stuck(t, w, "")
		time.Sleep(time.Second)
		stuck(t, w, "the alarm is late by 10m1s")
		a.Ring()
		stuck(t, w, "")
	})
}

// broken fails to wait, as a closed timer does.
type broken struct{ *alarm.Alarm }

func (broken) Wait(context.Context) error { return context.DeadlineExceeded }

func TestAQueueThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := renew.NewWatchdog(time.Now, broken{alarm.New()}, nil)
		if err := renew.NewQueue(time.Now, w, 10, 1, w.Do).Run(t.Context()); err == nil {
			t.Fatal("it runs on")
		}
		time.Sleep(limit + time.Second)
		stuck(t, w, "the queue has stood still for 10m1s")
	})
}
