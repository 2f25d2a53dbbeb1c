package store

import (
	"context"
	"errors"
	"fmt"
)

// ErrBusy is the error of a call while another one works on the volume.
var ErrBusy = errors.New("another operation is at work on this volume")

// Take waits for the volume's turn, for an operation that is named to those who wait. The context that it returns ends
// with ctx, and when another operation takes over. Give the turn back with [Volume.Release].
func (v *Volume) Take(ctx context.Context, operation string) (context.Context, error) {
	if err := v.wait(ctx); err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.takeOvers > 0 {
		<-v.turn
		return nil, fmt.Errorf("%w: it goes first", ErrBusy)
	}
	return v.begin(ctx, operation), nil
}

// TakeOver cancels the operation under way, and takes the turn after it, before all others that wait. Release the turn
// with [Volume.Release].
func (v *Volume) TakeOver(ctx context.Context, operation string) error {
	v.interrupt()
	defer v.endTakeOver()
	if err := v.wait(ctx); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.begin(ctx, operation)
	return nil
}

// interrupt cancels the operation under way, and lets no other begin until endTakeOver.
func (v *Volume) interrupt() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.takeOvers++
	if v.cancel != nil {
		v.cancel()
	}
}

// endTakeOver lets other operations begin, unless another TakeOver waits.
func (v *Volume) endTakeOver() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.takeOvers--
}

// wait waits for the turn.
func (v *Volume) wait(ctx context.Context) error {
	select {
	case v.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		v.mu.Lock()
		defer v.mu.Unlock()
		return fmt.Errorf("%w: %s; waiting for its end: %w", ErrBusy, v.operation, ctx.Err())
	}
}

// Try takes the turn if it is free. If it is not, the next [Volume.Release] reports that.
func (v *Volume) Try(ctx context.Context, operation string) (_ context.Context, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.takeOvers > 0 {
		v.missed = true
		return nil, false
	}
	select {
	case v.turn <- struct{}{}:
		return v.begin(ctx, operation), true
	default:
		v.missed = true
		return nil, false
	}
}

// begin records the operation. v.mu must be held.
func (v *Volume) begin(ctx context.Context, operation string) context.Context {
	ctx, v.cancel = context.WithCancel(ctx)
	v.operation = operation
	return ctx
}

// Release releases the turn, and reports whether a [Volume.Try] failed meanwhile.
func (v *Volume) Release() (missed bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.cancel()
	v.cancel = nil // It holds the context of a call, and so its connection.
	missed, v.missed = v.missed, false
	<-v.turn
	return missed
}

// Tried returns a channel that is closed at the end of the next attempt, or when the volume is removed. While the
// volume's turn is held, no end is missed.
func (v *Volume) Tried() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.tried
}

// AttemptEnded closes the channel of [Volume.Tried].
func (v *Volume) AttemptEnded() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.wake()
}

// wake closes the channel of Tried and makes a new one. v.mu must be held.
func (v *Volume) wake() {
	close(v.tried)
	v.tried = make(chan struct{})
}
