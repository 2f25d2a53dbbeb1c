package driver

import (
	"context"
	"errors"
	"time"

	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/mount"
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

// before are the defaults for a volume that was understood once: it outlives the driver's flags, and has what counted of the profiles on record.
func (d *Driver) before() volume.Defaults {
	defaults := d.Defaults
	defaults.AnyTrustFile = true
	defaults.PodCertificates = false // Who signs says what is wrong then.
	return defaults
}

// defaultsOf are those with which a call understands the volume: as its attempts know it, if it is known.
func (d *Driver) defaultsOf(ctx context.Context, h *held) (volume.Defaults, error) {
	if h.known() {
		return d.before(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, firstPatience)
	defer cancel()
	ctx, cancel = answerable(ctx)
	defer cancel()
	return d.defaults(ctx)
}

// understand takes the volume anew for a new attempt: as the profiles are now, and with the pod's IPs. The volume's turn must be held.
func (d *Driver) understand(ctx context.Context, h *held) error {
	if d.Profiles == nil && !h.volume.NeedsIP && len(h.volume.Gates) == 0 {
		return nil // It means what it meant.
	}
	asked := h.snapshot().Asked
	v, err := d.anew(ctx, h, asked)
	if err != nil {
		return err
	}
	if first := !h.has(); v.NeedsIP || first && len(v.Gates) > 0 {
		if asked.IPs, err = d.await(ctx, h, v, asked.IPs); err != nil {
			return signer.Errorf(signer.NotYet, "%w", err)
		}
		if v, err = d.anew(ctx, h, asked); err != nil {
			return err
		}
	}
	h.mu.Lock()
	h.volume = v
	h.mu.Unlock()
	d.follow(h)
	asked.Profile = v.Profile
	return h.update(func(r *files.Record) { r.Asked = asked }) // A restart goes on from the same.
}

// anew is the volume as the profiles are now. Those that don't fit, or can't be read, leave it as it was.
func (d *Driver) anew(ctx context.Context, h *held, asked volume.Asked) (volume.Volume, error) {
	ctx, cancel := context.WithTimeout(ctx, briefPatience)
	defer cancel()
	v, err := d.today(ctx, asked)
	if err == nil {
		return v, nil
	}
	d.Log.Warn("the profile of a volume stays as it was", "volume", h.id, "error", err)
	if v, err = volume.Parse(asked, d.before()); err != nil {
		return v, signer.Errorf(signer.Invalid, "%w", err)
	}
	return v, nil
}

// today is a volume that was understood once, as the profiles are now.
func (d *Driver) today(ctx context.Context, asked volume.Asked) (volume.Volume, error) {
	defaults, err := d.defaults(ctx)
	if err != nil {
		return volume.Volume{}, err
	}
	defaults.AnyTrustFile = true
	return volume.Parse(asked, defaults)
}

// overtaken reports whether the profiles have given the volume another issuer since its attempt was begun: the one that was asked may never answer.
func (d *Driver) overtaken(h *held) bool {
	if d.Profiles == nil {
		return false
	}
	ctx, cancel := context.WithCancel(d.base)
	cancel() // Nobody waits for profiles that are not known.
	v, err := d.today(ctx, h.snapshot().Asked)
	return err == nil && v.Issuer != h.volume.Issuer
}

// errNoPods is the answer where there is no API server to ask.
var errNoPods = errors.New("this driver can't read pods: it has no API server to ask")

// await waits until the pod's certificate can be asked for, and returns its IPs. A renewal does not wait for long: it can do with those that are known.
func (d *Driver) await(ctx context.Context, h *held, v volume.Volume, known []string) (ips []string, err error) {
	if d.Pods == nil {
		return nil, errNoPods
	}
	first := !h.has()
	ctx, cancel := answerable(ctx)
	defer cancel()
	if !first {
		ctx, cancel = context.WithTimeout(ctx, briefPatience)
		defer cancel()
	}
	state, err := d.Pods.Await(ctx, v.Pod, func(pod volume.PodState) error { return h.against(v.Awaits(pod, first)) })
	if err != nil && !first && len(known) > 0 {
		d.Log.Warn("the IPs of a pod are taken as they were", "volume", h.id, "error", err)
		return known, nil
	}
	return state.IPs, err
}

// against remembers what is against asking for the certificate.
func (h *held) against(err error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.awaits = err
	return err
}

// withoutPair reports whether the call for a volume without a pair succeeds all the same: the pod wants to start, or has started, without its certificate.
func (d *Driver) withoutPair(ctx context.Context, h *held) (bool, error) {
	if !h.volume.StartsWithout || h.has() || d.Pods == nil || !h.snapshot().IssuedAt.IsZero() {
		return false, nil
	}
	if mount.Bound(h.dir.Data(), h.snapshot().Asked.Target) { // It has started: the rest is done in the background.
		d.expect(h)
		return true, nil
	}
	if ready := d.canAsk(ctx, h); ready {
		return false, nil
	}
	h.files.Lock()
	defer h.files.Unlock()
	if err := h.dir.Install(files.Generation{Owner: h.volume.Owner}); err != nil {
		return false, err
	}
	d.expect(h)
	return true, nil
}

// canAsk looks at the pod once, and reports whether its certificate can be asked for. A pod that can't be read is told why it starts without.
func (d *Driver) canAsk(ctx context.Context, h *held) (ready bool) {
	v := h.volume
	if !v.NeedsIP && len(v.Gates) == 0 || h.snapshot().Attempt != "" {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, briefPatience)
	defer cancel()
	_, err := d.Pods.Await(ctx, v.Pod, func(pod volume.PodState) error {
		ready = h.against(v.Awaits(pod, true)) == nil
		return nil // One look is enough.
	})
	if err != nil {
		_ = h.against(err)
		d.Log.Warn("a pod starts without its certificate: it can't be read", "volume", h.id, "error", err)
		d.loose.Go(func() { d.warn(v.Pod, "CertificateNotIssued", "the pod starts without its certificate: "+err.Error()) })
	}
	return ready
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
	v := h.volume
	d.loose.Go(func() {
		defer cancel()
		if _, err := d.Pods.Await(ctx, v.Pod, func(pod volume.PodState) error { return h.against(v.Awaits(pod, true)) }); err != nil {
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
		d.loose.Go(func() { d.warn(pod, "RenewalNotUnderstood", err.Error()) })
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
