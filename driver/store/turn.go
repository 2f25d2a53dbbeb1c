package store

import (
	"context"
	"errors"
	"fmt"
)

// ErrBusy is the error of a call while another one works on the volume.
var ErrBusy = errors.New("another operation is at work on this volume")

// Take waits for the volume's turn, for an operation that is named to those who wait. The context that it returns ends
// with ctx, and when the operation is interrupted. Give the turn back with [Volume.Release].
func (v *Volume) Take(ctx context.Context, operation string) (context.Context, error) {
	select {
	case v.turn <- struct{}{}:
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.begin(ctx, operation), nil
	case <-ctx.Done():
		v.mu.Lock()
		defer v.mu.Unlock()
		return nil, fmt.Errorf("%w: %s; waiting for its end: %w", ErrBusy, v.operation, ctx.Err())
	}
}

// Try takes the turn if it is free. If it is not, [Volume.Release] reports it.
func (v *Volume) Try(ctx context.Context, operation string) (_ context.Context, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	select {
	case v.turn <- struct{}{}:
		return v.begin(ctx, operation), true
	default:
		v.missed = true
		return nil, false
	}
}

// begin notes the operation. The lock must be held.
func (v *Volume) begin(ctx context.Context, operation string) context.Context {
	ctx, v.cancel = context.WithCancel(ctx)
	v.operation = operation
	return ctx
}

// Release gives the turn back, and reports whether a [Volume.Try] failed meanwhile.
func (v *Volume) Release() (missed bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.cancel()
	missed, v.missed = v.missed, false
	<-v.turn
	return missed
}

// Interrupt ends the operation under way, if there is one.
func (v *Volume) Interrupt() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.cancel != nil {
		v.cancel()
	}
}

// Tried returns a channel that is closed at the end of the next attempt, or when the volume is removed. While the
// volume's turn is held, no end is missed.
func (v *Volume) Tried() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.tried
}

// AttemptEnded wakes those who wait for the end of an attempt.
func (v *Volume) AttemptEnded() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.wake()
}

func (v *Volume) wake() {
	close(v.tried)
	v.tried = make(chan struct{})
}
