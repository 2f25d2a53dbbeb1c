package trust

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// update updates the volume; the queue calls it after a change of a source or at the end of a CA certificate.
func (u *Updater) update(_ context.Context, id string) {
	v := u.store.Find(id)
	if v == nil {
		return
	}
	if err := u.refresh(v); err != nil {
		u.log.Error("CA certificates not changed", v.Attr(), "error", err)
		now := u.clocks.Now()
		u.schedule(id, now.Add(retryDelay), now)
	}
}

// refresh writes the current CA certificates into the volume, if they differ, next to the pair in force.
func (u *Updater) refresh(v *store.Volume) error {
	defer v.LockFiles()()
	u.clearUnapplied(v.ID())
	spec := v.Spec()
	if v.Removed() || spec.ID == "" {
		return nil
	}
	attempt, pair, err := v.Installed()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // The first pair brings them.
	}
	if err != nil {
		return err
	}
	now := u.clocks.Now()
	before := u.memory(v, spec)
	after := before.Distrust(u.currentList().distrusted).
		Update(spec.Trust, u.answers(spec), pair.Chain.Certificates(), now)
	roots := after.Roots(spec.Trust, now)
	differ := !after.IsInstalled(roots, after.Text(spec.Trust, roots))
	if differ && (after.Complete(spec.Trust) || before.HasInstalled()) {
		if after, err = u.install(v, spec, attempt, pair, after, roots, now); err != nil {
			return err
		}
		u.updated.Inc()
		u.log.Info("CA certificates changed", v.Attr(), "certificates", len(roots))
	} else if err := u.write(v, spec, after, now); err != nil {
		return err
	}
	u.installed(v, spec, before, after, now)
	return nil
}

// clearUnapplied notes that an update begins.
func (u *Updater) clearUnapplied(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if f := u.volumes[id]; f != nil {
		f.unapplied = false
	}
}

// install puts a pair in force with CA certificates, and returns the memory with these.
func (u *Updater) install(
	v *store.Volume, spec volume.Volume, attempt string, pair request.Pair, known Memory, roots chain.Bundle,
	now time.Time,
) (Memory, error) {
	pair.CA, pair.CAText = roots, known.Text(spec.Trust, roots)
	known = known.SetInstalled(roots, pair.CAText)
	text, err := known.Encode(spec.Trust, now)
	if err != nil {
		return Memory{}, err
	}
	return known, v.Install(spec, attempt, pair, text)
}

// write writes the memory into the volume.
func (u *Updater) write(v *store.Volume, spec volume.Volume, m Memory, now time.Time) error {
	text, err := m.Encode(spec.Trust, now)
	if err != nil {
		return err
	}
	return v.SetTrust(text)
}

// installed caches the memory, schedules the next end of a CA certificate, and queues warnings of new problems with
// sources. now is when it was decided which have not ended: one that ends since then is the next.
func (u *Updater) installed(v *store.Volume, spec volume.Volume, before, after Memory, now time.Time) {
	cached := &after
	// Unlike those of a source, the issuer's certificates are the volume's alone.
	if !slices.ContainsFunc(spec.Trust, shared) || len(after.Problems()) > 0 {
		cached = nil
	}
	u.setMemory(v.ID(), cached)
	u.schedule(v.ID(), after.NextEnd(spec.Trust, now), now)
	u.setDistrust(v.ID(), spec, after, now)
	u.warn(v, "TrustBundleKept", before.Problems(), after.Problems(), warningDelay)
	u.warn(v, "TrustBundleUnchecked", before.Unparsed(), after.Unparsed(), warningDelay)
	u.warnOfDistrust(v, spec, before, after, now)
}

// shared reports whether other volumes may have the source, too. Only such a source changes between renewals.
func shared(s volume.Source) bool { return s.Kind != volume.IssuerSource }

// warn queues a warning for each source whose message changed, and withdraws those of sources without one.
func (u *Updater) warn(v *store.Volume, reason string, before, after map[string]string, delay time.Duration) {
	for source := range before {
		if after[source] == "" {
			u.events.Withdraw(v.ID(), reason+" "+source)
		}
	}
	for source, message := range after {
		if message != before[source] && !v.Removed() {
			warning := event.Warning{Reason: reason, Message: message}
			u.events.Warn(v.Record().Asked, reason+" "+source, warning, delay)
		}
	}
}
