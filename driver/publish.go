package driver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/mayfly-csi/mayfly/driver/issue"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/service"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// Publish returns when a valid pair is in the volume and the volume is mounted on its target.
//
// While anything of the volume exists its errors are not final, so that the kubelet tries again or unpublishes it.
// They are final only if nothing was made or everything was removed.
func (d *Driver) Publish(ctx context.Context, asked volume.Asked, token issue.Token) error {
	v := d.store.Get(asked.ID)
	d.setToken(v, token)
	d.readWish(ctx, v)
	if v.Known() && v.ValidAt(d.clocks.Now()) && v.Bound(asked.Target) && ofSameDriver(v.Record().Asked, asked) {
		return nil
	}
	ctx, cancel := d.callContext(ctx)
	defer cancel()
	for {
		tried, err := d.publishOnce(ctx, v, asked, token)
		if tried == nil {
			return err
		}
		// Wait for the end of the next attempt: the kubelet's own backoff would delay the pod by up to 2 minutes
		// after it (kubernetes pkg/util/goroutinemap/exponentialbackoff).
		select {
		case <-tried:
		case <-ctx.Done():
			return err
		}
	}
}

// publishOnce runs the steps once. If the volume backs off and the next try is worth waiting for, tried is closed at
// its end.
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
	if missing(filepath.Dir(asked.Target)) {
		const format = "the target's directory %s does not exist: the kubelet has made it, and the driver must " +
			"see it (--kubelet-root, and the mounts of the driver's pod)"
		return nil, fmt.Errorf(format, filepath.Dir(asked.Target))
	}
	if err := d.open(ctx, v, asked, token); err != nil {
		return nil, err
	}
	if tried, err := d.ensure(ctx, v); err != nil {
		return tried, err
	}
	return nil, d.bind(v, asked.Target)
}

// open makes the volume's tmpfs and record, or reopens those that exist.
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
	if err := d.store.Mount(v, spec.SELinuxContext); err != nil {
		return err
	}
	if asked.Password != "" {
		if err := v.SetPassword(asked.Password); err != nil {
			return err
		}
	}
	if spec.Keystore.Password == asked.Password { // It is stored in a file of its own.
		spec.Keystore.Password = ""
	}
	asked.Password, asked.Secrets, asked.Profile = "", false, spec.Profile // It has what was in the Secret.
	v.SetSpec(spec)
	d.setToken(v, token)
	d.trust.Follow(v)
	if err := v.Update(func(r *store.Record) { r.SetAsked(asked, spec) }); err != nil {
		return err
	}
	d.resolve.WarnOverlooked(v)
	d.schedule(v) // The tmpfs may have a pair, under a record that could not be read.
	return nil
}

// defaults returns the current flags and profiles.
func (d *Driver) defaults(ctx context.Context) (volume.Defaults, error) {
	ctx, cancel := context.WithTimeout(ctx, firstTimeout)
	defer cancel()
	return d.resolve.Defaults(ctx)
}

// reopen reopens a volume that is on record. Its attempts resolve what it asks for.
func (d *Driver) reopen(v *store.Volume, asked volume.Asked) error {
	before := v.Record().Asked
	switch {
	case before.Target != asked.Target:
		return fmt.Errorf("volume %s is published at %s: unpublish it there first", v.ID(), before.Target)
	case !ofSameDriver(before, asked):
		return fmt.Errorf("volume %s is one of driver %s, and the call came to %s", v.ID(), before.Driver, asked.Driver)
	}
	if v.Spec().ID == "" {
		if err := d.resolve.Recorded(v); err != nil && !v.ValidAt(d.clocks.Now()) {
			return fmt.Errorf("the volume is kept as it is: its attributes are not valid any more: %w", err)
		}
	}
	hadPair := v.HasPair()
	if err := d.store.Mount(v, v.Spec().SELinuxContext); err != nil {
		return err
	}
	if hadPair && !v.HasPair() { // It went with the tmpfs: an Event that the pod keeps it would not be true.
		d.issuer.Withdraw(v)
	}
	if asked.Password == "" {
		return nil
	}
	if err := d.resolve.CheckPassword(v, asked); err != nil {
		d.Log.Warn("the password of a volume's keystores is not changed", v.Attr(), "error", err)
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
	now := d.clocks.Now()
	if v.ValidAt(now) {
		return nil, nil
	}
	if without, err := d.resolve.StartsWithout(ctx, v); without || err != nil {
		return nil, err
	}
	switch r := v.Record(); {
	case r.Failure == nil:
		// A short wait, so that the kubelet soon sends an Event; its next call continues the attempt.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, firstTimeout)
		defer cancel()
	case r.Failure.Kind != signer.NotYet.String():
		if at := renew.Next(d.state(v), now); at.After(now) {
			if r.Attempt != "" || at.Sub(now) <= soon { // A later try continues it, or comes soon.
				tried = v.Tried()
			}
			return tried, issue.BackoffError{Failure: *r.Failure}
		}
	}
	return nil, d.issue(ctx, v)
}

// issue gets a new pair for the volume, its first or another. The volume's turn must be held.
func (d *Driver) issue(ctx context.Context, v *store.Volume) error {
	err := d.attempt(ctx, v)
	if err != nil && !interrupted(ctx, err) {
		err = d.issuer.Fail(v, err)
	}
	d.schedule(v)
	v.AttemptEnded()
	return err
}

// interrupted reports whether an attempt ended because it was cancelled: the caller hung up, the volume is unpublished
// or the driver stops. That is no failure: the attempt continues later. An answer that ends the attempt counts.
func interrupted(ctx context.Context, err error) bool {
	return errors.Is(ctx.Err(), context.Canceled) && !signer.KindOf(err).Ends()
}

// attempt runs the steps in order. It continues an attempt that was begun before, even by another process.
func (d *Driver) attempt(ctx context.Context, v *store.Volume) error {
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
	return d.issuer.Finish(v, pair, d.clocks.Now())
}

// begin returns the attempt under way, or begins one with the current flags and profiles.
func (d *Driver) begin(ctx context.Context, v *store.Volume) (issue.Attempt, error) {
	if a, ok := d.issuer.Pending(v); ok && !d.resolve.IssuerChanged(v) {
		return a, nil
	}
	if err := d.resolve.Attempt(ctx, v); err != nil {
		return issue.Attempt{}, err
	}
	d.trust.Follow(v)
	return d.issuer.Begin(ctx, v)
}

// Unpublish removes the volume. It succeeds if there is none.
func (d *Driver) Unpublish(ctx context.Context, id, target string) error {
	ctx, cancel := d.callContext(ctx)
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

// discard removes the volume from target and state directory, and its state in each package.
func (d *Driver) discard(v *store.Volume, target string) error {
	podUID := v.Spec().Pod.UID
	last, err := d.store.Remove(v, target)
	if err != nil {
		return err
	}
	d.queue.Remove(v.ID())
	d.ends.Remove(v.ID())
	d.trust.Forget(v.ID())
	d.events.Forget(v.ID())
	d.resolve.Forget(v.ID())
	d.issuer.Forget(v, last)
	d.store.Forget(v) // From now on the id may be that of another volume.
	d.forgetWish(podUID)
	return nil
}

// reject returns the answer for a volume whose attributes are invalid and which is not on record, and discards it
// unless it has a pair. What another driver of its name has mounted stays: the pod may run with it.
func (d *Driver) reject(v *store.Volume, asked volume.Asked, problems error) error {
	if v.HasPair() { // Its record is lost; its attributes were valid once.
		if v.ValidAt(d.clocks.Now()) {
			d.Log.Warn("a volume keeps its certificate, but its attributes are invalid",
				store.Attr(v.ID(), asked), "error", problems)
			return nil
		}
		return problems
	}
	if foreign, err := v.Foreign(asked.Target); foreign || err != nil {
		return errors.Join(problems, err)
	}
	if err := d.discard(v, asked.Target); err != nil {
		return errors.Join(problems, err)
	}
	return service.Invalid(problems)
}

// callContext returns a context that ends after publishTimeout, a little before the caller's deadline, so that an
// answer with the reason still reaches the kubelet, and when the driver stops.
func (d *Driver) callContext(ctx context.Context) (context.Context, context.CancelFunc) {
	const margin = 3 * time.Second
	end := time.Now().Add(publishTimeout)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(end) {
		end = deadline
	}
	if time.Until(end) > 2*margin {
		end = end.Add(-margin)
	}
	ctx, cancel := context.WithDeadline(ctx, end)
	unlink := context.AfterFunc(d.stopping, cancel)
	return ctx, func() {
		unlink()
		cancel()
	}
}
