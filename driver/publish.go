package driver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mayfly-csi/mayfly/driver/issue"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// publish returns when a valid pair is in the volume and the volume on its target.
//
// While something of a volume exists its errors are not final, so that the kubelet tries again or unpublishes it; a
// final one comes only when nothing was made or everything is removed.
func (d *Driver) publish(ctx context.Context, asked volume.Asked, token issue.Token) error {
	v := d.store.Get(asked.ID)
	d.setToken(v, token)
	if v.Known() && v.ValidAt(now()) && v.Bound(asked.Target) && ofSameDriver(v.Record().Asked, asked) {
		return nil
	}
	ctx, cancel := answerable(ctx)
	defer cancel()
	for {
		tried, err := d.publishOnce(ctx, v, asked, token)
		if tried == nil {
			return err
		}
		// The end of the next attempt is waited for: the kubelet's own backoff would keep the pod waiting for up to 2
		// minutes after it (kubernetes pkg/util/goroutinemap/exponentialbackoff).
		select {
		case <-tried:
		case <-ctx.Done():
			return err
		case <-d.stopping:
			return err
		}
	}
}

// publishOnce runs the steps once. Where the volume backs off and a later attempt may go better, tried is closed at the
// end of the next one.
func (d *Driver) publishOnce(
	ctx context.Context, v *store.Volume, asked volume.Asked, token issue.Token,
) (tried <-chan struct{}, err error) {
	ctx, err = v.Take(ctx, "a publish call")
	if err != nil {
		return nil, err
	}
	defer d.release(v)
	if v.Removed() {
		return nil, store.ErrBusy
	}
	if err := d.open(ctx, v, asked, token); err != nil {
		return nil, err
	}
	if tried, err := d.ensure(ctx, v); err != nil {
		return tried, err
	}
	return nil, v.Bind(asked.Target)
}

// open makes the volume's tmpfs and record, or goes on with those that are there.
func (d *Driver) open(ctx context.Context, v *store.Volume, asked volume.Asked, token issue.Token) error {
	if v.Known() {
		return d.reopen(v, asked)
	}
	defaults, err := d.defaults(ctx)
	if err != nil {
		return err
	}
	spec, err := volume.Parse(asked, defaults)
	if err != nil {
		return d.reject(v, asked, err)
	}
	swappable, err := v.Mount(spec.SELinuxContext)
	if err != nil {
		return err
	}
	if swappable {
		d.metrics.swappable.Inc()
	}
	if asked.Password != "" {
		if err := v.SetPassword(asked.Password); err != nil {
			return err
		}
	}
	if spec.Keystore.Password == asked.Password { // It is kept in a file of its own.
		spec.Keystore.Password = ""
	}
	asked.Password, asked.Secrets, asked.Profile = "", false, spec.Profile // It has what was in the Secret.
	v.SetSpec(spec)
	d.setToken(v, token)
	d.trust.Follow(v)
	if err := v.Update(func(r *store.Record) { r.SetAsked(asked, spec) }); err != nil {
		return err
	}
	d.schedule(v) // What lay there under a record that could not be read is renewed again.
	return nil
}

// defaults returns the flags and profiles of now.
func (d *Driver) defaults(ctx context.Context) (volume.Defaults, error) {
	ctx, cancel := context.WithTimeout(ctx, firstTimeout)
	defer cancel()
	return d.resolve.Defaults(ctx)
}

// reopen goes on with a volume that is on record. What it asks for is resolved by its attempts.
func (d *Driver) reopen(v *store.Volume, asked volume.Asked) error {
	before := v.Record().Asked
	switch {
	case before.Target != asked.Target:
		return fmt.Errorf("volume %s is published at %s: unpublish it there first", v.ID(), before.Target)
	case !ofSameDriver(before, asked):
		return fmt.Errorf("volume %s is one of driver %s, and the call came to %s", v.ID(), before.Driver, asked.Driver)
	}
	if v.Spec().ID == "" {
		if err := d.resolve.Recorded(v); err != nil && !v.ValidAt(now()) {
			return fmt.Errorf("the volume is kept as it is, for its attributes are not understood any more: %w", err)
		}
	}
	if _, err := v.Mount(v.Spec().SELinuxContext); err != nil {
		return err
	}
	if asked.Password == "" {
		return nil
	}
	if err := d.resolve.Password(v, asked); err != nil {
		d.Log.Warn("the password of a volume's keystores stays as it was", "volume", v.ID(), "error", err)
		return nil
	}
	return v.SetPassword(asked.Password)
}

// ofSameDriver reports whether a call came to the driver that the record names.
func ofSameDriver(before, asked volume.Asked) bool {
	return before.Driver == "" || before.Driver == asked.Driver
}

// ensure sees to a valid pair in the volume. A volume that backs off is not tried again before its time.
func (d *Driver) ensure(ctx context.Context, v *store.Volume) (tried <-chan struct{}, err error) {
	t := now()
	if v.ValidAt(t) {
		return nil, nil
	}
	if without, err := d.resolve.StartsWithout(ctx, v); without || err != nil {
		return nil, err
	}
	switch r := v.Record(); {
	case r.Failure == nil:
		// The pod's author soon reads what the pod waits for; the kubelet's next call goes on with the same attempt.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, firstTimeout)
		defer cancel()
	case r.Failure.Kind != signer.NotYet.String() && r.Failure.RetryAt.After(t):
		if r.Attempt != "" { // It goes on.
			tried = v.Tried()
		}
		return tried, restingError{*r.Failure, t}
	}
	return nil, d.issue(ctx, v)
}

// issue brings a new pair into the volume. A renewal is the same call, later. The volume's turn must be held.
func (d *Driver) issue(ctx context.Context, v *store.Volume) error {
	err := d.attempt(ctx, v)
	if err != nil {
		err = d.issuer.Fail(v, err)
	}
	d.schedule(v)
	v.AttemptEnded()
	return err
}

// attempt goes through the steps in order. An attempt that was begun before, even by another process, goes on.
func (d *Driver) attempt(ctx context.Context, v *store.Volume) error {
	if err := v.Mounted(); err != nil {
		return err
	}
	if finished, err := d.issuer.FinishInstalled(v); finished {
		return err
	}
	a, err := d.begin(ctx, v)
	if err != nil {
		return err
	}
	if err := d.trust.Wait(ctx, v); err != nil {
		return err
	}
	pair, err := d.issuer.Sign(ctx, v, a)
	if err != nil {
		return err
	}
	if err := d.trust.Install(v, a.ID, pair); err != nil {
		return err
	}
	return d.issuer.Finish(v, pair, now())
}

// begin returns the attempt under way, or begins one for what the volume asks for now.
func (d *Driver) begin(ctx context.Context, v *store.Volume) (issue.Attempt, error) {
	if a, ok := d.issuer.Pending(v); ok && !d.resolve.IssuerChanged(v) {
		return a, nil
	}
	if err := d.resolve.Attempt(ctx, v); err != nil {
		return issue.Attempt{}, err
	}
	d.trust.Follow(v)
	return d.issuer.Begin(v)
}

// unpublish removes the volume. It succeeds for one that is not there.
func (d *Driver) unpublish(ctx context.Context, id, target string) error {
	ctx, cancel := answerable(ctx)
	defer cancel()
	v := d.store.Get(id)
	if err := v.TakeOver(ctx, "an unpublish call"); err != nil {
		return err
	}
	defer d.release(v)
	if v.Removed() { // By a call before. What lies there now may be another volume's.
		return store.ErrBusy
	}
	return d.discard(v, target)
}

// discard removes the volume from target and state directory, and what each package knows of it.
func (d *Driver) discard(v *store.Volume, target string) error {
	last, err := d.store.Remove(v, target)
	if err != nil {
		return err
	}
	d.queue.Remove(v.ID())
	d.trust.Forget(v.ID())
	d.events.Forget(v.ID())
	d.resolve.Forget(v.ID())
	d.issuer.Forget(v, last)
	d.store.Forget(v) // Last: from now on the id may be that of another volume.
	return nil
}

// reject answers a volume that is not understood, and was never on record.
func (d *Driver) reject(v *store.Volume, asked volume.Asked, problems error) error {
	if v.HasPair() { // Its record is lost: it was understood once.
		if v.ValidAt(now()) {
			d.Log.Warn("a volume keeps its certificate, for its attributes are not understood", "volume", v.ID(), "error", problems)
			return nil
		}
		return problems
	}
	if err := d.discard(v, asked.Target); err != nil {
		return errors.Join(problems, err)
	}
	return badCall{problems}
}

// restingError is the answer for a volume that backs off.
type restingError struct {
	store.Failure
	now time.Time
}

// Error says the last reason and the time of the next try.
func (e restingError) Error() string {
	return fmt.Sprintf("%s (%s; the next try is at %s, in %s)", e.Reason, times(e.Count),
		stamp(e.RetryAt), e.RetryAt.Sub(e.now).Round(time.Second))
}

func times(n int) string {
	if n == 1 {
		return "tried once"
	}
	return fmt.Sprintf("tried %d times", n)
}

// answerable returns a context that ends after a call's time, and a little before the caller's: an answer that
// names the reason must still reach the kubelet.
func answerable(ctx context.Context) (context.Context, context.CancelFunc) {
	const margin = 3 * time.Second
	end := time.Now().Add(publishTimeout)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(end) {
		end = deadline
	}
	if time.Until(end) > 2*margin {
		end = end.Add(-margin)
	}
	return context.WithDeadline(ctx, end)
}
