package renew_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/renew"
)

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
	for _, at := range []time.Time{{}, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)} {
		w.Set(at)
		doesNotRing(t, w)
	}
	w.Set(time.Now())
	if err := w.Wait(t.Context()); err != nil {
		t.Errorf("after a wait that was given up: %v", err)
	}
}

// doesNotRing demands that the alarm does not ring soon.
func doesNotRing(t *testing.T, w *renew.WallClock) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := w.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it rang: %v", err)
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
