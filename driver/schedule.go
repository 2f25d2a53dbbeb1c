package driver

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/issue"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/signer"
)

// discardDelay is the delay after a removal that failed.
const discardDelay = 10 * time.Second

// resume resumes a volume of an earlier process.
func (d *Driver) resume(v *store.Volume) {
	record := v.Record()
	if record.Asked.ID != "" {
		if err := d.resolve.Recorded(v); err != nil {
			d.Log.Error("a volume is kept as it is, and not renewed: its attributes are invalid",
				v.Attr(), "error", err)
		}
	}
	switch target := record.Asked.Target; {
	case target == "" || !missing(filepath.Dir(target)):
	case d.abandoned(target):
		d.removeAbandoned(v)
		return
	default:
		d.Log.Error("a volume is kept, and whether its pod is there is not known: the driver does not see the "+
			"kubelet's directory of pods (--kubelet-root, and the mounts of the driver's pod)",
			v.Attr(), "directory", podsOf(target))
	}
	spec := v.Spec()
	if spec.StartsWithout && !v.HasPair() && record.Attempt == "" && d.Pods != nil {
		d.resolve.Gates.Watch(spec)
	}
	if spec.ID != "" {
		d.issuer.Clean(v)
		d.issuer.Resume(v)
		d.trust.Follow(v)
	}
	d.schedule(v)
}

// due runs what is due for a volume; the queue calls it.
func (d *Driver) due(ctx context.Context, id string) {
	v := d.store.Find(id)
	if v == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout(v))
	defer cancel()
	ctx, ok := v.Try(ctx, "a renewal")
	if !ok {
		return // The operation that has the turn schedules the volume when it ends.
	}
	defer d.release(v)
	d.work(ctx, v)
}

// timeout returns how long a try in the background may take. Volumes that wait for a signer must not delay the renewal
// of others: their requests stay at the signer, and the next try finds them there.
func (d *Driver) timeout(v *store.Volume) time.Duration {
	if !v.HasPair() || d.issuer.IsSilent(v) {
		return briefTimeout
	}
	return renewalTimeout
}

// work does what is due, unless another operation has done it meanwhile.
func (d *Driver) work(ctx context.Context, v *store.Volume) {
	target, at := v.Record().Asked.Target, renew.Next(d.state(v), d.clocks.Now())
	switch {
	case v.Removed():
	case target != "" && d.abandoned(target):
		d.removeAbandoned(v)
	case at.IsZero():
	case at.After(d.clocks.Now()):
		d.schedule(v)
	default:
		if err := d.issue(ctx, v); err != nil && !interrupted(ctx, err) {
			d.issuer.Report(v, err)
		}
	}
}

// abandoned reports whether the kubelet has removed the directory that it made for the target: the pod is deleted, and
// its volume will not be unpublished. Where the directory of all pods is missing, too, the driver only does not see it.
func (d *Driver) abandoned(target string) bool {
	return missing(filepath.Dir(target)) && (d.KubeletRoot == "" || !missing(podsOf(target)))
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// podsOf returns the kubelet's directory of pods, in which a target is (kubernetes pkg/volume/csi/csi_mounter.go,
// getTargetPath): <pods>/<uid>/volumes/kubernetes.io~csi/<name>/mount.
func podsOf(target string) string {
	for range 5 {
		target = filepath.Dir(target)
	}
	return target
}

// removeAbandoned removes a volume whose pod is deleted. If that fails it is tried again.
func (d *Driver) removeAbandoned(v *store.Volume) {
	if err := d.discard(v, v.Record().Asked.Target); err != nil {
		d.Log.Error("a volume whose pod is gone can't be removed", v.Attr(), "error", err)
		d.queue.Set(v.ID(), renew.Entry{At: d.clocks.Now().Add(discardDelay)})
		return
	}
	d.Log.Info("removed a volume whose pod is gone", v.Attr())
}

// bind mounts the volume on target. A container sees what was mounted when it started: if that was something else, the
// pod is warned.
func (d *Driver) bind(v *store.Volume, target string) error {
	const reason, message = "VolumeReplaced", "mounted in place of another driver's volume, or of one whose tmpfs " +
		"was unmounted: a container that runs keeps the files of that, which nobody renews, until it is restarted"
	replaced, err := v.Bind(target)
	if replaced {
		d.Log.Warn("a volume is mounted in place of another", v.Attr())
		d.events.Warn(v.Record().Asked, reason, event.Warning{Reason: reason, Message: message}, 0)
	}
	return err
}

// release releases the volume's turn, and schedules the volume if it was due meanwhile.
func (d *Driver) release(v *store.Volume) {
	if v.Release() {
		d.schedule(v)
	}
}

// schedule sets in the queues when the volume is due and when its certificate ends. It is called after each change of
// what that depends on; calls are serialized, so that the last one counts.
func (d *Driver) schedule(v *store.Volume) {
	d.scheduling.Lock()
	defer d.scheduling.Unlock()
	if end, ok := issue.EndOf(v); ok {
		d.ends.Set(v.ID(), renew.Entry{At: end})
	}
	state, now := d.state(v), d.clocks.Now()
	if at := renew.Next(state, now); !at.IsZero() && !v.Removed() {
		spec := v.Spec()
		d.queue.Set(v.ID(), renew.Entry{
			At: at, Begins: state.Received(now), Ends: state.NotAfter,
			Shares: renew.Shares{Namespace: spec.Pod.Namespace, Pod: spec.Pod.UID, Issuer: issue.IssuerOf(spec)},
		})
	}
}

// scheduleID schedules the volume, if there is one.
func (d *Driver) scheduleID(id string) {
	if v := d.store.Find(id); v != nil {
		d.schedule(v)
	}
}

// state returns what decides when the volume is due.
func (d *Driver) state(v *store.Volume) renew.State {
	r, spec := v.Record(), v.Spec()
	if spec.ID == "" { // It could not be resolved: it is not due before the next call.
		return renew.State{}
	}
	s := renew.State{
		Rule:    issue.RenewalRule(spec),
		Pending: r.Attempt != "", Open: d.resolve.Gates.Open(v.ID()),
		IssuedAt: r.IssuedAt, NotAfter: r.EndsAt, RenewAt: r.RenewAt, Stalled: r.Stalled > 0,
		Once: spec.Once, Wanted: d.wanted.At(spec.Pod.UID),
	}
	if r.Failure != nil {
		s.FailedAt, s.RetryAt = r.Failure.At, r.Failure.RetryAt
	}
	if pair, ok := v.Pair(); ok {
		s.HasPair, s.NotBefore, s.ValidFrom, s.NotAfter = true, pair.NotBefore, pair.ValidFrom(), pair.NotAfter
	}
	return s
}

// ended reports the end of a volume's certificate, unless it was renewed meanwhile; the queue of ends calls it.
func (d *Driver) ended(_ context.Context, id string) {
	v := d.store.Find(id)
	if v == nil {
		return
	}
	d.issuer.ReportEnd(v, d.clocks.Now())
	if end, ok := issue.EndOf(v); ok { // The clock was set back.
		d.ends.Set(id, renew.Entry{At: end})
	}
}

// setToken stores the token that came with a call.
func (d *Driver) setToken(v *store.Volume, token issue.Token) {
	if token.Value != "" {
		d.issuer.SetToken(v, token)
	}
}

// watchRenewals watches the annotations by which pods ask for renewals, until ctx ends.
func (d *Driver) watchRenewals(ctx context.Context) error {
	return d.Pods.Renewals(ctx, d.renewAt, func(err error) {
		d.Log.Warn("the annotations of pods can't be read: this is tried again", "error", err)
	})
}

// readWish reads the annotation of the pod at a call for a volume that waits or is overdue, where it is not watched.
func (d *Driver) readWish(ctx context.Context, v *store.Volume) {
	if d.Pods == nil || d.WatchPods || !d.waits(v) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, wishTimeout)
	defer cancel()
	pod := v.Spec().Pod
	switch at, invalid, err := d.Pods.RenewAt(ctx, pod); {
	case err != nil:
		d.Log.Debug("an annotation can't be read", v.Attr(), "error", err)
	case invalid != nil || !at.Equal(d.wanted.At(pod.UID)):
		d.renewAt(pod, at, invalid)
	}
}

// waits reports whether the volume backs off, or was to be renewed well before now.
func (d *Driver) waits(v *store.Volume) bool {
	r, now := v.Record(), d.clocks.Now()
	return v.Known() && v.Spec().ID != "" && (r.Failure != nil && r.Failure.RetryAt.After(now) || r.Overdue(now))
}

// forgetWish forgets what a pod's annotation said, if the pod has no volume any more. Where annotations are watched,
// the watch does that.
func (d *Driver) forgetWish(podUID string) {
	if d.WatchPods || d.wanted.At(podUID).IsZero() {
		return
	}
	of := func(v *store.Volume) bool { return v.Spec().Pod.UID == podUID }
	if !slices.ContainsFunc(d.store.All(), of) {
		d.wanted.Set(podUID, time.Time{})
	}
}

// renewAt schedules the renewal of the pod's certificates that are older than at for that time.
func (d *Driver) renewAt(pod signer.Pod, at time.Time, err error) {
	d.wanted.Set(pod.UID, at)
	for _, v := range d.store.All() {
		if v.Spec().Pod.UID != pod.UID {
			continue
		}
		if err != nil {
			const reason = "RenewalNotUnderstood"
			asked := v.Record().Asked
			asked.Target = "" // The annotation is the pod's, not this volume's.
			d.events.Warn(asked, reason, event.Warning{Reason: reason, Message: err.Error()}, 0)
			err = nil // One Event a pod.
		}
		d.schedule(v)
	}
}
