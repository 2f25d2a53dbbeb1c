// Package alarm has an alarm for tests of queues that run in a bubble (testing/synctest).
package alarm

import (
	"context"
	"sync"
	"time"
)

// An Alarm rings by the bubble's clock. It implements renew.Alarm. Make one with [New].
type Alarm struct {
	mu    sync.Mutex
	timer *time.Timer
	rings chan struct{}
	waits int
}

// New makes an alarm that is not set.
func New() *Alarm { return &Alarm{rings: make(chan struct{}, 1)} }

// Set implements renew.Alarm.
func (a *Alarm) Set(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.timer != nil {
		a.timer.Stop()
	}
	if !at.IsZero() {
		a.timer = time.AfterFunc(time.Until(at), a.Ring)
	}
}

// Ring rings now, as when the wall clock is set.
func (a *Alarm) Ring() {
	select {
	case a.rings <- struct{}{}:
	default:
	}
}

// Wait implements renew.Alarm.
func (a *Alarm) Wait(ctx context.Context) error {
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

// Waits returns how often Wait was called.
func (a *Alarm) Waits() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.waits
}

// Close implements renew.Clock.
func (a *Alarm) Close() error {
	a.Set(time.Time{})
	return nil
}
