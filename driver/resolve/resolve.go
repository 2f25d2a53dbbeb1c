// Package resolve resolves what a volume asks for: the pod's attributes with the driver's flags, the operator's
// profiles and the pod's IPs, as they are when an attempt begins. Where these don't fit a volume any more, its last
// resolution is used: a running pod never depends on the current flags.
package resolve

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/pod"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// briefTimeout is how long an attempt waits for profiles, and a renewal for the pod's IPs: it can use those of the
// last resolution.
const briefTimeout = 3 * time.Second

// Profiles reads what the operator sets for volumes.
type Profiles interface {
	// Run keeps the profiles up to date until ctx ends, and calls changed with those that Get returns next.
	Run(ctx context.Context, changed func(*volume.Profiles)) error
	// Get returns the current profiles. It waits until they were read once; when ctx ends before, the error says why.
	Get(ctx context.Context) (*volume.Profiles, error)
	// Valid reports whether the last version of the profiles was parsed.
	Valid() bool
}

// Config configures a resolver. All fields are required but those that say otherwise.
type Config struct {
	Flags    volume.Defaults
	Profiles Profiles // nil: there are none.
	Gates    *pod.Gates
	Events   *event.Queue
	Metrics  prometheus.Registerer // nil: metrics are not registered.
	Log      *slog.Logger
}

// A Resolver resolves volumes. Make one with [New].
type Resolver struct {
	Config

	earlier earlier
}

// New makes a resolver. It panics if the registry has its metrics already.
func New(config Config) *Resolver {
	r := &Resolver{Config: config}
	metrics := promauto.With(config.Metrics)
	metrics.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mayfly_volumes_with_earlier_settings",
		Help: "Volumes that the current flags and profiles don't fit: the last ones that did are used."},
		func() float64 { return float64(r.earlier.count()) })
	if r.Profiles != nil {
		metrics.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mayfly_profiles_valid",
			Help: "1 if the last version of the profiles' ConfigMap was parsed; 0: the last valid one is used."},
			func() float64 {
				if r.Profiles.Valid() {
					return 1
				}
				return 0
			})
	}
	return r
}

// Defaults returns the current flags and profiles. It waits for profiles that were never read.
func (r *Resolver) Defaults(ctx context.Context) (defaults volume.Defaults, err error) {
	defaults = r.Flags
	if r.Profiles == nil {
		return defaults, nil
	}
	profiles, err := r.Profiles.Get(ctx)
	if err != nil {
		return defaults, err
	}
	defaults.Live = &profiles.Profiles
	return defaults, nil
}

// Attempt resolves what a new attempt asks for, with the current flags and profiles and the pod's IPs, and records it
// if it has changed. The volume's turn must be held.
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
	if cancelled(ctx) { // What could not be read for that is no reason to use what is on record.
		return ctx.Err()
	}
	v.SetSpec(spec)
	asked.Profile = spec.Profile
	if reflect.DeepEqual(asked, record.Asked) && bytes.Equal(record.Resolved, volume.Encode(spec)) {
		return nil
	}
	return v.Update(func(record *store.Record) { record.SetAsked(asked, spec) }) // A restart continues with the same.
}

// cancelled reports whether the operation was cancelled, as by a stop, and its time is not over.
func cancelled(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

// current resolves the volume with the current flags and profiles. Where these don't fit it returns the last
// resolution, and warns the pod.
func (r *Resolver) current(ctx context.Context, v *store.Volume, asked volume.Asked) volume.Volume {
	reading, cancel := context.WithTimeout(ctx, briefTimeout)
	defer cancel()
	defaults, err := r.Defaults(reading)
	if cancelled(ctx) {
		return v.Spec()
	}
	if err != nil { // The profile in its record is used.
		r.Log.Warn("the recorded profile of a volume is used", v.Attr(), "error", err)
		defaults = r.Flags
	}
	spec, err := parse(asked, defaults)
	if err != nil {
		spec = r.before(v, asked)
	}
	r.setProblems(v, err)
	return spec
}

// before returns the volume by the flags of now and the profile that counted last, with the IPs of asked; where the
// flags don't fit, either, as it was resolved last.
func (r *Resolver) before(v *store.Volume, asked volume.Asked) volume.Volume {
	if spec, err := parse(asked, r.Flags); err == nil {
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
		if spec, err = parse(record.Asked, defaults); err != nil {
			return false
		}
	}
	return spec.Issuer != begun.Issuer
}

// Recorded resolves what a recovered volume asks for, with the current flags and the recorded profile. Where the
// flags don't fit any more it uses the recorded resolution; the record of a driver that recorded none is parsed as
// that driver parsed it.
func (r *Resolver) Recorded(v *store.Volume) error {
	record := v.Record()
	spec, problems := parse(record.Asked, r.Flags)
	if problems != nil {
		var err error
		if spec, err = record.ResolvedSpec(); err != nil {
			defaults := r.Flags
			defaults.PodCertificates = false
			if spec, err = parse(record.Asked, defaults); err != nil {
				r.setProblems(v, problems)
				return problems
			}
		}
	}
	v.SetSpec(spec)
	r.setProblems(v, problems)
	return nil
}

// CheckPassword returns why a password in a call for a volume on record can't be that of its keystores; nil if it can.
func (r *Resolver) CheckPassword(v *store.Volume, asked volume.Asked) error {
	before := v.Record().Asked
	asked.Profile, asked.IPs, asked.Dialect = before.Profile, before.IPs, before.Dialect
	_, err := parse(asked, r.Flags)
	return err
}

// parse parses the attributes of a volume on record: for it a trust file that the driver no longer has is a warning,
// not an error. The records of earlier drivers name no dialect.
func parse(asked volume.Asked, defaults volume.Defaults) (volume.Volume, error) {
	defaults.AnyTrustFile = true
	if asked.Dialect == "" {
		return volume.ParseEarlier(asked, defaults)
	}
	return volume.Parse(asked, defaults)
}

// earlier holds the volumes that the current flags and profiles don't fit, and why: their last resolution is used. The
// zero earlier is ready for use.
type earlier struct {
	mu  sync.Mutex
	why map[string]string
}

// set records why flags and profiles don't fit the volume; empty: they fit. It reports whether that changed.
func (e *earlier) set(id, why string) (changed bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.why == nil {
		e.why = map[string]string{}
	}
	changed = e.why[id] != why
	e.why[id] = why
	if why == "" {
		delete(e.why, id)
	}
	return changed
}

// count returns how many volumes there are.
func (e *earlier) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.why)
}

// setProblems records why flags and profiles don't fit a volume, nil if they do, and warns operator and pod's author.
func (r *Resolver) setProblems(v *store.Volume, problems error) {
	const reason = "EarlierSettings"
	if problems == nil {
		r.earlier.set(v.ID(), "")
		r.Events.Withdraw(v.ID(), reason)
		return
	}
	if !r.earlier.set(v.ID(), problems.Error()) {
		return
	}
	r.Log.Warn("flags and profiles don't fit a volume any more: the last ones that did are used",
		v.Attr(), "error", problems)
	message := "the driver's settings don't fit this volume any more, and those of before count: " + problems.Error()
	r.Events.Warn(v.Record().Asked, reason, event.Warning{Reason: reason, Message: message}, 0)
}

// WarnOverlooked warns the pod of attributes that count for nothing in its volume's dialect.
func (r *Resolver) WarnOverlooked(v *store.Volume) {
	const reason = "AttributeOverlooked"
	spec := v.Spec()
	if len(spec.Overlooked) == 0 {
		return
	}
	message := "overlooked, as cert-manager's driver does it: " + strings.Join(spec.Overlooked, "; ")
	r.Log.Warn("attributes of a volume are overlooked", v.Attr(), "problems", spec.Overlooked)
	r.Events.Warn(v.Record().Asked, reason, event.Warning{Reason: reason, Message: message}, 0)
}

// awaitPod waits until the pod's certificate can be requested, and returns its IPs. A renewal waits for briefTimeout,
// and then uses those that are known.
func (r *Resolver) awaitPod(
	ctx context.Context, v *store.Volume, spec volume.Volume, known []string,
) ([]string, error) {
	first := !v.HasPair()
	if !first {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, briefTimeout)
		defer cancel()
	}
	ips, err := r.Gates.Await(ctx, spec, first)
	if err != nil && !errors.Is(err, pod.ErrNoAPI) && !first && len(known) > 0 && !cancelled(ctx) {
		r.Log.Warn("a pod can't be read: its recorded IPs are used", v.Attr(), "error", err)
		return known, nil
	}
	return ips, err
}

// StartsWithout reports whether a publish call for a volume without a pair succeeds nevertheless: the pod asks to
// start without its certificate, or has started so.
func (r *Resolver) StartsWithout(ctx context.Context, v *store.Volume) (bool, error) {
	spec, record := v.Spec(), v.Record()
	if !spec.StartsWithout || v.HasPair() || !r.Gates.CanRead() || !record.IssuedAt.IsZero() {
		return false, nil
	}
	if !v.Bound(record.Asked.Target) { // Else the pod has started, and gets its certificate in the background.
		if can, err := r.canRequest(ctx, v, spec); can || err != nil {
			return false, err
		}
		if err := v.InstallNothing(); err != nil {
			return false, err
		}
	}
	r.Gates.Watch(spec)
	return true, nil
}

// canRequest reads the pod, and reports whether its certificate can be requested. A pod that can't be read gets a
// warning that says why it starts without.
func (r *Resolver) canRequest(ctx context.Context, v *store.Volume, spec volume.Volume) (bool, error) {
	if !spec.NeedsIP && len(spec.Gates) == 0 || v.Record().Attempt != "" {
		return true, nil
	}
	reading, cancel := context.WithTimeout(ctx, briefTimeout)
	defer cancel()
	blocked, unread := r.Gates.Check(reading, spec)
	if unread != nil && cancelled(ctx) {
		return false, unread
	}
	if unread != nil {
		r.Log.Warn("a pod starts without its certificate: it can't be read", v.Attr(), "error", unread)
		message := "the pod starts without its certificate: " + unread.Error()
		w := event.Warning{Reason: "CertificateNotIssued", Message: message}
		r.Events.Warn(v.Record().Asked, w.Reason, w, 0)
	}
	return blocked == nil && unread == nil, nil
}

// Forget removes the state of a volume.
func (r *Resolver) Forget(id string) {
	r.Gates.Forget(id)
	r.earlier.set(id, "")
}
