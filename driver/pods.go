package driver

import (
	"context"
	"errors"
	"time"

	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// Pods tells what the API server knows of the node's pods.
type Pods interface {
	// Await returns the pod's state when ready has nothing against it. When ctx ends before, the error is what ready had last.
	Await(ctx context.Context, pod signer.Pod, ready func(volume.PodState) error) (volume.PodState, error)
	// Renewals calls renew for pods that are to get new certificates at a time, and fail when it can't tell, until ctx ends.
	Renewals(ctx context.Context, renew func(pod signer.Pod, at time.Time, err error), fail func(error)) error
}

// Profiles are what the operator sets for volumes, as it is now.
type Profiles interface {
	Run(ctx context.Context) error
	// Get waits until the profiles were read once. When ctx ends before, the error says why.
	Get(ctx context.Context) (*volume.Profiles, error)
	// Valid reports whether they are understood as they are now.
	Valid() bool
}

// defaults are those of now.
func (d *Driver) defaults(ctx context.Context) (defaults volume.Defaults, err error) {
	defaults = d.Defaults
	if d.Profiles != nil {
		defaults.Live, err = d.Profiles.Get(ctx)
	}
	return defaults, err
}

// before are the defaults for a volume that was understood once: it outlives the driver's flags.
func (d *Driver) before() volume.Defaults {
	defaults := d.Defaults
	defaults.AnyTrustFile = true
	return defaults
}

// understand takes the volume anew for a new attempt: with the pod's IPs, and as the profiles are now. Profiles that don't fit, or can't be read,
// leave it as it was understood before. The volume's turn must be held.
func (d *Driver) understand(ctx context.Context, h *held) error {
	if !h.looksAtPod() && d.Profiles == nil {
		return nil
	}
	asked := h.snapshot().Asked
	if h.looksAtPod() {
		state, err := d.await(ctx, h)
		if err != nil {
			return signer.Errorf(signer.NotYet, "%w", err)
		}
		asked.IPs = state.IPs
	}
	brief, cancel := context.WithTimeout(ctx, briefPatience)
	defer cancel()
	defaults, err := d.defaults(brief)
	if err != nil {
		d.Log.Warn("the profile of a volume stays as it was", "volume", h.id, "error", err)
	}
	defaults.AnyTrustFile = true
	v, err := volume.Parse(asked, defaults)
	if err != nil {
		d.Log.Warn("the profile of a volume stays as it was: that of now does not fit", "volume", h.id, "error", err)
		v, err = volume.Parse(asked, d.before())
	}
	if err != nil {
		return signer.Errorf(signer.Invalid, "%w", err)
	}
	h.mu.Lock()
	h.volume = v
	h.mu.Unlock()
	d.follow(h)
	asked.Profile = v.Profile
	return h.update(func(r *files.Record) { r.Asked = asked }) // A restart goes on from the same.
}

// looksAtPod reports whether the pod must be read before the next attempt.
func (h *held) looksAtPod() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.volume.NeedsIP || len(h.volume.Gates) > 0 && h.pair == nil
}

// errNoPods is the answer where there is no API server to ask.
var errNoPods = errors.New("this driver can't read pods: it has no API server to ask")

// await waits until the pod's certificate can be asked for.
func (d *Driver) await(ctx context.Context, h *held) (volume.PodState, error) {
	if d.Pods == nil {
		return volume.PodState{}, errNoPods
	}
	ctx, cancel := answerable(ctx)
	defer cancel()
	return d.Pods.Await(ctx, h.volume.Pod, h.ready)
}

// ready is what is against asking for the certificate, and remembers it.
func (h *held) ready(pod volume.PodState) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.awaits = h.volume.Awaits(pod, h.pair == nil)
	return h.awaits
}

// startWithout reports whether the pod may start without a certificate, because it wants to and it can't be asked for yet. It is asked for later.
func (d *Driver) startWithout(ctx context.Context, h *held) (bool, error) {
	if !h.volume.StartsWithout || h.has() || !h.looksAtPod() || h.snapshot().Attempt != "" || d.Pods == nil {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, briefPatience)
	defer cancel()
	var against error
	_, err := d.Pods.Await(ctx, h.volume.Pod, func(pod volume.PodState) error {
		against = h.ready(pod)
		return nil // One look is enough.
	})
	if err == nil && against == nil {
		return false, nil
	}
	h.files.Lock()
	defer h.files.Unlock()
	if err := h.dir.Write(files.Set{}, h.volume.Owner); err != nil {
		return false, err
	}
	d.expect(h)
	return true, nil
}

// expect has the certificate asked for as soon as it can be, in the background.
func (d *Driver) expect(h *held) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.unexpect != nil || h.gone {
		return
	}
	ctx, cancel := context.WithCancel(d.base)
	h.unexpect = cancel
	pod := h.volume.Pod
	d.loose.Go(func() {
		defer cancel()
		if _, err := d.Pods.Await(ctx, pod, h.ready); err != nil {
			return // The volume or the driver has ended.
		}
		h.mu.Lock()
		h.expected = true
		h.mu.Unlock()
		d.schedule(h)
	})
}

// watchRenewals renews what an annotation of its pod asks for.
func (d *Driver) watchRenewals(ctx context.Context) error {
	return d.Pods.Renewals(ctx, d.renewAt, func(err error) {
		d.Log.Warn("the annotations of pods are not known: they are asked for again", "error", err)
	})
}

// renewAt has the pod's certificates that are older than at renewed at that time.
func (d *Driver) renewAt(pod signer.Pod, at time.Time, err error) {
	var volumes []*held
	d.mu.Lock()
	d.renewals[pod.UID] = at
	if at.IsZero() {
		delete(d.renewals, pod.UID)
	}
	for _, h := range d.held {
		if h.pod().UID == pod.UID {
			volumes = append(volumes, h)
		}
	}
	d.mu.Unlock()
	if err != nil && len(volumes) > 0 {
		d.warn(pod, "RenewalNotUnderstood", err.Error())
	}
	for _, h := range volumes {
		d.schedule(h)
	}
}

// renewalOf is when someone wants the pod's certificates renewed; zero: nobody does.
func (d *Driver) renewalOf(pod signer.Pod) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.renewals[pod.UID]
}
