package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/signer"
)

// forgetPatience is how long the removal of one finished request may take.
const forgetPatience = 30 * time.Second

// due is what the queue calls: a volume's pair is to be renewed, or an attempt that was left is to go on.
func (d *Driver) due(ctx context.Context, id string) {
	h := d.find(id)
	if h == nil {
		return
	}
	if !h.takeNow() {
		return
	}
	defer d.release(h)
	ctx, cancel := context.WithTimeout(ctx, h.patience())
	defer cancel()
	h.mu.Lock()
	h.cancel = cancel
	h.mu.Unlock()
	d.work(ctx, h)
}

// patience is how long a try in the background may take. The workers are few: those who wait for a signer must not keep pods that have a certificate
// from their renewal.
func (h *held) patience() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pair == nil {
		return briefPatience
	}
	return renewalPatience
}

// work does what is due, if it still is: who had the turn before may have done it.
func (d *Driver) work(ctx context.Context, h *held) {
	at := d.dueAt(h)
	switch {
	case h.gone || at.IsZero():
	case at.After(now()):
		d.schedule(h)
	case abandoned(h.snapshot().Asked.Target):
		d.clear(h)
	default:
		if err := d.issue(ctx, h); err != nil && ctx.Err() != context.Canceled {
			d.complain(h, err)
		}
	}
}

// abandoned reports whether the kubelet has taken away the directory that it made for the target: the pod is gone,
// and nobody will unpublish its volume.
func abandoned(target string) bool {
	_, err := os.Stat(filepath.Dir(target))
	return errors.Is(err, fs.ErrNotExist)
}

// clear removes a volume whose pod is gone.
func (d *Driver) clear(h *held) {
	if err := d.discard(h, h.snapshot().Asked.Target); err != nil {
		d.Log.Error("a volume whose pod is gone can't be removed", "volume", h.id, "error", err)
		return
	}
	d.Log.Info("removed a volume whose pod is gone", "volume", h.id)
}

// worthTelling is how long a volume rests at least after a failure of which the pod is told by an Event: what time mends sooner is nobody's trouble.
const worthTelling = 30 * time.Second

// complain tells operator and pod's author of an attempt that failed in the background.
func (d *Driver) complain(h *held, cause error) {
	h.mu.Lock()
	pod, pair, failure, started := h.volume.Pod, h.pair, h.record.Failure, h.volume.StartsWithout
	h.mu.Unlock()
	d.Log.Error("certificate not issued", "volume", h.id, "pod", pod.Namespace+"/"+pod.Name, "error", cause)
	if failure == nil || failure.RetryAt.Sub(failure.At) < worthTelling {
		return
	}
	next := fmt.Sprintf("%s; the next try is at %s; ", failure.Reason, stamp(failure.RetryAt))
	switch {
	case pair != nil:
		d.warn(pod, "CertificateNotRenewed", next+"the pod keeps its certificate, which ends at "+stamp(pair.notAfter))
	case started:
		d.warn(pod, "CertificateNotIssued", next+"the pod has no certificate")
	} // Another pod is told by the kubelet what its calls met: it has not started.
}

// warn tells the pod's author, by an Event.
func (d *Driver) warn(pod signer.Pod, reason, message string) (told bool) {
	if d.Events == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(d.base, forgetPatience)
	defer cancel()
	if err := d.Events.Warn(ctx, pod, reason, message); err != nil {
		d.Log.Warn("the pod was not told", "pod", pod.Namespace+"/"+pod.Name, "error", err)
		return false
	}
	return true
}

// dueAt is when the volume is to be looked at next; zero: when a call comes.
func (d *Driver) dueAt(h *held) time.Time {
	wanted := d.renewalOf(h.pod())
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.next(wanted)
}

// next is when, as someone may want a renewal. The lock must be held.
func (h *held) next(wanted time.Time) time.Time {
	r := h.record
	switch {
	case h.volume.ID == "": // Its attributes are unknown.
		return time.Time{}
	case r.Failure != nil:
		return r.Failure.RetryAt
	case r.Attempt != "": // Left by another process.
		return now()
	case h.pair == nil && h.expected:
		return now()
	case h.pair == nil && r.IssuedAt.IsZero():
		return time.Time{}
	case h.pair == nil: // It can't be read.
		return r.RenewAt
	case wanted.After(r.IssuedAt) && (h.volume.Once || wanted.Before(r.RenewAt)):
		return wanted
	case h.volume.Once:
		return time.Time{}
	case r.RenewAt.IsZero(): // A record that was made anew, after one that could not be read.
		return renew.At(h.id, h.pair.notBefore, h.pair.notAfter, h.volume.RenewBefore)
	}
	return r.RenewAt
}

// schedule tells the queue when the volume is to be looked at next.
func (d *Driver) schedule(h *held) {
	pod := h.pod()
	for wanted, last := d.renewalOf(pod), false; !last; {
		d.queueAt(h, wanted)
		again := d.renewalOf(pod) // It may have changed before the queue was told.
		wanted, last = again, again.Equal(wanted)
	}
}

func (d *Driver) queueAt(h *held, wanted time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var expiry time.Time
	if h.pair != nil {
		expiry = h.pair.notAfter
	}
	if at := h.next(wanted); !at.IsZero() && !h.gone {
		d.queue.Set(h.id, at, expiry)
	}
}

// retire notes that an attempt is over and its request may lie about at the signer.
func (d *Driver) retire(r *files.Record, attempt string) {
	if _, ok := d.Signer.(signer.Forgetter); ok && attempt != "" {
		r.Finished = append(slices.Clone(r.Finished), attempt)
	}
}

// trim has the signer forget all but the last requests of the volume, in the background: the pod is answered first.
func (d *Driver) trim(h *held, keep int) {
	finished := h.snapshot().Finished
	if surplus := len(finished) - keep; surplus > 0 {
		d.forget(h, h.volume.Pod, finished[:surplus])
	}
}

// forget has the signer forget attempts, and strikes those that it forgot from the record. What fails is tried again after the next attempt;
// when the pod is gone, the API server collects what it owned.
func (d *Driver) forget(h *held, pod signer.Pod, attempts []string) {
	forgetter, ok := d.Signer.(signer.Forgetter)
	if !ok {
		return
	}
	d.loose.Go(func() {
		ctx, cancel := context.WithTimeout(d.base, forgetPatience)
		defer cancel()
		var forgotten []string
		for _, id := range attempts {
			if err := forgetter.Forget(ctx, signer.Attempt{ID: id, Pod: pod}); err != nil {
				d.Log.Warn("a finished request was not removed", "volume", h.id, "error", err)
				continue
			}
			forgotten = append(forgotten, id)
		}
		err := h.update(func(r *files.Record) {
			r.Finished = slices.DeleteFunc(slices.Clone(r.Finished), func(id string) bool { return slices.Contains(forgotten, id) })
		})
		if err != nil {
			d.Log.Warn("the record still names a request that was removed", "volume", h.id, "error", err)
		}
	})
}
