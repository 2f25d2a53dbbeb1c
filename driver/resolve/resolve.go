// Package resolve settles what a volume asks for: the pod's attributes by the driver's flags, the operator's profiles
// and the pod's IPs, as they are when an attempt begins. Where these don't fit a volume any more, what counted last
// stays: what a running pod has never depends on the flags of now.
package resolve

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/pod"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// briefTimeout is how long an attempt waits for profiles, and a renewal for the pod's IPs: it can do with those that
// are known.
const briefTimeout = 3 * time.Second

// Profiles are what the operator sets for volumes, as it is now.
type Profiles interface {
	Run(ctx context.Context) error
	// Get waits until the profiles were read once. When ctx ends before, the error says why.
	Get(ctx context.Context) (*volume.Profiles, error)
	// Valid reports whether they are understood as they are now.
	Valid() bool
}

// A Resolver resolves volumes. All fields are required but Profiles.
type Resolver struct {
	Flags    volume.Defaults
	Profiles Profiles // nil: there are none.
	Gates    *pod.Gates
	Events   *event.Queue
	Log      *slog.Logger

	earlier earlier
}

// Defaults returns the flags and profiles of now. It waits for profiles that were never read.
func (r *Resolver) Defaults(ctx context.Context) (defaults volume.Defaults, err error) {
	defaults = r.Flags
	if r.Profiles != nil {
		defaults.Live, err = r.Profiles.Get(ctx)
	}
	return defaults, err
}

// Attempt settles what a new attempt asks for: by the flags and profiles of now, and with the pod's IPs. The volume's
// turn must be held.
func (r *Resolver) Attempt(ctx context.Context, v *store.Volume) error {
	spec, record := v.Spec(), v.Record()
	fixed := r.Profiles == nil && !spec.NeedsIP && len(spec.Gates) == 0
	if fixed && bytes.Equal(record.Resolved, volume.Encode(spec)) {
		return nil // It means what it meant.
	}
	asked := record.Asked
	spec = r.current(ctx, v, asked)
	if first := !v.HasPair(); spec.NeedsIP || first && len(spec.Gates) > 0 {
		var err error
		if asked.IPs, err = r.awaitPod(ctx, v, spec, asked.IPs); err != nil {
			return signer.Errorf(signer.NotYet, "%w", err)
		}
		spec = r.current(ctx, v, asked)
	}
	v.SetSpec(spec)
	asked.Profile = spec.Profile
	return v.Update(func(record *store.Record) { record.SetAsked(asked, spec) }) // A restart goes on from the same.
}

// current returns the volume by the flags and profiles of now. Where those don't fit, or can't be read, the volume is
// what it was, and its pod is told so.
func (r *Resolver) current(ctx context.Context, v *store.Volume, asked volume.Asked) volume.Volume {
	ctx, cancel := context.WithTimeout(ctx, briefTimeout)
	defer cancel()
	defaults, err := r.Defaults(ctx)
	if err != nil { // What its record has of them counts.
		r.Log.Warn("the profile of a volume stays as it was", "volume", v.ID(), "error", err)
		defaults = r.Flags
	}
	defaults.AnyTrustFile = true // The pod is told of one that is missing.
	spec, err := volume.Parse(asked, defaults)
	if err != nil {
		spec = r.before(v, asked)
	}
	r.note(v.ID(), spec.Pod, err)
	return spec
}

// before returns the volume by the flags of now and the profile that counted last, with the IPs of asked; where the flags
// don't fit, either, as it was resolved last.
func (r *Resolver) before(v *store.Volume, asked volume.Asked) volume.Volume {
	defaults := r.Flags
	defaults.AnyTrustFile = true
	if spec, err := volume.Parse(asked, defaults); err == nil {
		return spec
	}
	return v.Spec()
}

// IssuerChanged reports whether flags or profiles have given the volume another issuer since its attempt was begun: the
// one that was asked may never answer.
func (r *Resolver) IssuerChanged(v *store.Volume) bool {
	record := v.Record()
	begun, err := record.ResolvedSpec()
	if err != nil {
		return false
	}
	spec := v.Spec()
	if r.Profiles != nil {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // Nobody waits for profiles that are not known.
		defaults, err := r.Defaults(ctx)
		if err != nil {
			return false
		}
		if spec, err = volume.Parse(record.Asked, defaults); err != nil {
			return false
		}
	}
	return spec.Issuer != begun.Issuer
}

// Recorded settles what a volume on record asks for, by the flags of now and the profile that counted last. Where
// the flags don't fit any more, what the record resolved last counts; the record of a driver that kept none is read as
// that driver read it.
func (r *Resolver) Recorded(v *store.Volume) error {
	record := v.Record()
	defaults := r.Flags
	defaults.AnyTrustFile = true
	spec, problems := volume.Parse(record.Asked, defaults)
	if problems != nil {
		var err error
		if spec, err = record.ResolvedSpec(); err != nil {
			defaults.PodCertificates = false
			if spec, err = volume.Parse(record.Asked, defaults); err != nil {
				r.note(v.ID(), volume.PodOf(record.Asked), problems)
				return problems
			}
		}
	}
	v.SetSpec(spec)
	r.note(v.ID(), spec.Pod, problems)
	return nil
}

// Password says why a password that came with a call for a volume on record can't be that of its keystores.
func (r *Resolver) Password(v *store.Volume, asked volume.Asked) error {
	before := v.Record().Asked
	asked.Profile, asked.IPs = before.Profile, before.IPs
	defaults := r.Flags
	defaults.AnyTrustFile = true
	_, err := volume.Parse(asked, defaults)
	return err
}

// earlier are the volumes that the flags and profiles of now don't fit, and why: what was resolved before counts. The
// zero earlier is ready for use.
type earlier struct {
	mu  sync.Mutex
	why map[string]string
}

// set notes why; empty: the volume is as flags and profiles say. It reports whether that is new.
func (e *earlier) set(id, why string) (isNew bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.why == nil {
		e.why = map[string]string{}
	}
	isNew = e.why[id] != why
	e.why[id] = why
	if why == "" {
		delete(e.why, id)
	}
	return isNew
}

// count returns how many there are.
func (e *earlier) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.why)
}

// note notes why flags and profiles don't fit a volume, nil if they do, and tells operator and pod's author.
func (r *Resolver) note(id string, of signer.Pod, problems error) {
	const reason = "EarlierSettings"
	if problems == nil {
		r.earlier.set(id, "")
		r.Events.Withdraw(id, reason)
		return
	}
	if !r.earlier.set(id, problems.Error()) {
		return
	}
	r.Log.Warn("flags and profiles don't fit a volume any more; what counted before counts", "volume", id, "error", problems)
	message := "the driver's settings don't fit this volume any more, and those of before count: " + problems.Error()
	r.Events.Warn(id, of, reason, event.Warning{Reason: reason, Message: message}, 0)
}

// awaitPod waits until the pod's certificate can be asked for, and returns its IPs. A renewal does not wait for long: it
// can do with those that are known.
func (r *Resolver) awaitPod(ctx context.Context, v *store.Volume, spec volume.Volume, known []string) ([]string, error) {
	first := !v.HasPair()
	if !first {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, briefTimeout)
		defer cancel()
	}
	ips, err := r.Gates.Await(ctx, spec, first)
	if err != nil && !errors.Is(err, pod.ErrNoAPI) && !first && len(known) > 0 {
		r.Log.Warn("the IPs of a pod are taken as they were", "volume", v.ID(), "error", err)
		return known, nil
	}
	return ips, err
}

// StartsWithout reports whether the call for a volume without a pair succeeds all the same: the pod wants to start, or
// has started, without its certificate.
func (r *Resolver) StartsWithout(ctx context.Context, v *store.Volume) (bool, error) {
	spec, record := v.Spec(), v.Record()
	if !spec.StartsWithout || v.HasPair() || !r.Gates.CanRead() || !record.IssuedAt.IsZero() {
		return false, nil
	}
	if !v.Bound(record.Asked.Target) { // Else it has started: the rest is done in the background.
		if r.canAsk(ctx, v, spec) {
			return false, nil
		}
		if err := v.InstallNothing(); err != nil {
			return false, err
		}
	}
	r.Gates.Watch(spec)
	return true, nil
}

// canAsk looks at the pod once, and reports whether its certificate can be asked for. A pod that can't be read is told
// why it starts without.
func (r *Resolver) canAsk(ctx context.Context, v *store.Volume, spec volume.Volume) bool {
	if !spec.NeedsIP && len(spec.Gates) == 0 || v.Record().Attempt != "" {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, briefTimeout)
	defer cancel()
	blocked, unread := r.Gates.Check(ctx, spec)
	if unread != nil {
		r.Log.Warn("a pod starts without its certificate: it can't be read", "volume", v.ID(), "error", unread)
		w := event.Warning{Reason: "CertificateNotIssued", Message: "the pod starts without its certificate: " + unread.Error()}
		r.Events.Warn(v.ID(), spec.Pod, w.Reason, w, 0)
	}
	return blocked == nil && unread == nil
}

// Forget drops what is known of a volume.
func (r *Resolver) Forget(id string) {
	r.Gates.Forget(id)
	r.earlier.set(id, "")
}

// Earlier returns how many volumes the flags and profiles of now don't fit.
func (r *Resolver) Earlier() int { return r.earlier.count() }
