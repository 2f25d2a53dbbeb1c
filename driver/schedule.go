package driver

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/issue"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/signer"
)

// discardDelay is after how long the removal of a volume is tried again that failed.
const discardDelay = time.Minute

// resume goes on with a volume that an earlier process left.
func (d *Driver) resume(v *store.Volume) {
	record := v.Record()
	if record.Asked.ID != "" {
		if err := d.resolve.Recorded(v); err != nil {
			d.Log.Error("a volume is kept as it is, and not renewed: its attributes are not understood",
				"volume", v.ID(), "error", err)
		}
	}
	d.replan(v)
	if target := record.Asked.Target; target != "" && abandoned(target) {
		d.clear(v)
		return
	}
	spec := v.Spec()
	if spec.StartsWithout && !v.HasPair() && record.Attempt == "" && d.Pods != nil {
		d.resolve.Gates.Watch(spec)
	}
	if spec.ID != "" {
		d.issuer.Clean(v)
		d.trust.Follow(v)
	}
	d.schedule(v)
}

// due is what the queue calls: a volume's pair is to be renewed, or an attempt that was left is to go on.
func (d *Driver) due(ctx context.Context, id string) {
	v := d.store.Find(id)
	if v == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, timeout(v))
	defer cancel()
	ctx, ok := v.Try(ctx, "a renewal")
	if !ok {
		return // Who has the turn looks again.
	}
	defer d.release(v)
	d.work(ctx, v)
}

// timeout returns how long a try in the background may take. The workers are few: those who wait for a signer must not
// keep pods that have a certificate from their renewal.
func timeout(v *store.Volume) time.Duration {
	if !v.HasPair() {
		return briefTimeout
	}
	return renewalTimeout
}

// work does what is due, if it still is: who had the turn before may have done it.
func (d *Driver) work(ctx context.Context, v *store.Volume) {
	target, at := v.Record().Asked.Target, d.next(v)
	switch {
	case v.Removed():
	case target != "" && abandoned(target):
		d.clear(v)
	case at.IsZero():
	case at.After(now()):
		d.schedule(v)
	default:
		if err := d.issue(ctx, v); err != nil && !errors.Is(ctx.Err(), context.Canceled) {
			d.issuer.Report(v, err)
		}
	}
}

// abandoned reports whether the kubelet has taken away the directory that it made for the target: the pod is gone, and
// nobody will unpublish its volume.
func abandoned(target string) bool {
	_, err := os.Stat(filepath.Dir(target))
	return errors.Is(err, fs.ErrNotExist)
}

// clear removes a volume whose pod is gone. What can't be removed is tried again.
func (d *Driver) clear(v *store.Volume) {
	if err := d.discard(v, v.Record().Asked.Target); err != nil {
		d.Log.Error("a volume whose pod is gone can't be removed", "volume", v.ID(), "error", err)
		d.queue.Set(v.ID(), now().Add(discardDelay), time.Time{})
		return
	}
	d.Log.Info("removed a volume whose pod is gone", "volume", v.ID())
}

// release gives the volume's turn back, and looks again at what was due meanwhile.
func (d *Driver) release(v *store.Volume) {
	if v.Release() {
		d.schedule(v)
	}
}

// schedule tells the queue when the volume is to be looked at next. It is called after each change of what that
// depends on; only one such call works at a time, so that the last one counts.
func (d *Driver) schedule(v *store.Volume) {
	d.planning.Lock()
	defer d.planning.Unlock()
	pair, _ := v.Pair()
	if at := d.next(v); !at.IsZero() && !v.Removed() {
		d.queue.Set(v.ID(), at, pair.NotAfter)
	}
}

func (d *Driver) scheduleID(id string) {
	if v := d.store.Find(id); v != nil {
		d.schedule(v)
	}
}

// next returns when the volume is to be looked at; zero: when a call comes.
func (d *Driver) next(v *store.Volume) time.Time {
	r, spec := v.Record(), v.Spec()
	if spec.ID == "" { // What it asks for is not known.
		return time.Time{}
	}
	s := renew.State{
		Pending: r.Attempt != "", HasPair: v.HasPair(), Open: d.resolve.Gates.Open(v.ID()), IssuedAt: r.IssuedAt,
		RenewAt: r.RenewAt, Once: spec.Once, Wanted: d.wanted.At(spec.Pod.UID),
	}
	if r.Failure != nil {
		s.Resting = r.Failure.RetryAt
	}
	if pair, ok := v.Pair(); ok && r.RenewAt.IsZero() { // Of a record that was made anew, after one that could not be read.
		s.RenewAt = renew.At(v.ID(), pair.NotBefore, pair.NotAfter, spec.RenewBefore)
	}
	return renew.Next(s, now())
}

// replan plans the renewal of a volume whose record is that of a driver that went by the leaf alone.
func (d *Driver) replan(v *store.Volume) {
	pair, ok := v.Pair()
	r := v.Record()
	if !ok || v.Spec().ID == "" || !r.EndsAt.IsZero() || r.IssuedAt.IsZero() {
		return
	}
	at := issue.RenewalAt(v, r.IssuedAt, pair.NotAfter)
	v.Amend(func(r *store.Record) {
		if r.RenewAt.IsZero() || at.Before(r.RenewAt) {
			r.RenewAt = at
		}
	})
}

// setToken keeps the token that came with a call.
func (d *Driver) setToken(v *store.Volume, token issue.Token) {
	if token.Value != "" && d.issuer.SetToken(v, token) {
		d.schedule(v)
	}
}

// watchRenewals renews what an annotation of its pod asks for.
func (d *Driver) watchRenewals(ctx context.Context) error {
	return d.Pods.Renewals(ctx, d.renewAt, func(err error) {
		d.Log.Warn("the annotations of pods are not known: they are asked for again", "error", err)
	})
}

// renewAt has the pod's certificates that are older than at renewed at that time.
func (d *Driver) renewAt(pod signer.Pod, at time.Time, err error) {
	d.wanted.Set(pod.UID, at)
	for _, v := range d.store.All() {
		if v.Spec().Pod.UID != pod.UID {
			continue
		}
		if err != nil {
			const reason = "RenewalNotUnderstood"
			d.events.Warn(v.ID(), pod, reason, event.Warning{Reason: reason, Message: err.Error()}, 0)
			err = nil // One Event a pod.
		}
		d.schedule(v)
	}
}
