package store_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/mayfly-csi/mayfly/driver/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newVolume(t *testing.T) *store.Volume {
	t.Helper()
	s, err := store.New(t.TempDir(), time.Now, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s.Get("csi-1")
}

// Who waits in vain learns for what; who takes over ends the operation, and only that one.
func TestTheTurn(t *testing.T) {
	v := newVolume(t)
	first, err := v.Take(t.Context(), "a renewal")
	if err != nil || first.Err() != nil {
		t.Fatal(err, first.Err())
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Take(ended, "a publish call"); !errors.Is(err, store.ErrBusy) || !strings.Contains(err.Error(), "a renewal") {
		t.Errorf("a wait in vain: %v", err)
	}
	if _, ok := v.Try(t.Context(), "a renewal"); ok {
		t.Error("two have the turn")
	}
	if err := v.TakeOver(ended, "an unpublish call"); !errors.Is(err, store.ErrBusy) {
		t.Errorf("a wait in vain: %v", err)
	}
	if !errors.Is(first.Err(), context.Canceled) {
		t.Error("the operation goes on")
	}
	if !v.Release() {
		t.Error("that somebody tried was forgotten")
	}
	second, ok := v.Try(t.Context(), "a renewal")
	if !ok || second.Err() != nil {
		t.Fatal("the turn is not free", second)
	}
	if v.Release() {
		t.Error("nobody tried")
	}
	if second.Err() == nil {
		t.Error("a context outlives its operation")
	}
}

// Who takes over has the turn before those who waited longer.
func TestTakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVolume(t)
		first, err := v.Take(t.Context(), "a renewal")
		if err != nil {
			t.Fatal(err)
		}
		waited := make(chan error, 1)
		go func() {
			_, err := v.Take(t.Context(), "a publish call")
			waited <- err
		}()
		synctest.Wait()
		go func() {
			<-first.Done()
			if _, ok := v.Try(t.Context(), "a renewal"); ok {
				t.Error("another operation began")
			}
			v.Release()
		}()
		if err := v.TakeOver(t.Context(), "an unpublish call"); err != nil {
			t.Fatal(err)
		}
		if err := <-waited; !errors.Is(err, store.ErrBusy) {
			t.Errorf("who waited got %v", err)
		}
		v.Release()
		if _, err := v.Take(t.Context(), "a publish call"); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// The end of an attempt wakes those who asked before it.
func TestTried(t *testing.T) {
	v := newVolume(t)
	before := v.Tried()
	v.AttemptEnded()
	select {
	case <-before:
	case <-time.After(time.Minute):
		t.Error("nobody was woken")
	}
	select {
	case <-v.Tried():
		t.Error("the end of the next attempt comes before it")
	default:
	}
}

// A record names as many finished attempts as it has room for.
func TestFinishedAttempts(t *testing.T) {
	var r store.Record
	r.Finish("")
	for i := range 40 {
		r.Finish(strings.Repeat("x", i+1))
	}
	if len(r.Finished) != 32 || len(r.Finished[31]) != 40 {
		t.Errorf("%d, the last %d", len(r.Finished), len(r.Finished[31]))
	}
	r.Forget([]string{strings.Repeat("x", 40), "unknown"})
	if len(r.Finished) != 31 {
		t.Errorf("%d are left", len(r.Finished))
	}
}
