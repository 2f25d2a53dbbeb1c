package driver

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/mount"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/driver/trust"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// issue brings a new pair into the volume. A renewal is the same call, later. The volume's turn must be held.
func (d *Driver) issue(ctx context.Context, h *held) error {
	err := d.attempt(ctx, h)
	if err != nil {
		err = d.fail(h, err)
	}
	d.schedule(h)
	h.ended()
	return err
}

// attempt goes through the steps in order. An attempt that was begun before, even by another process, goes on.
func (d *Driver) attempt(ctx context.Context, h *held) error {
	if mounted, err := mount.Is(string(h.dir)); err != nil || !mounted { // No key is ever on a disk.
		return cmp.Or(err, fmt.Errorf("the tmpfs of volume %s is gone: somebody else unmounted it", h.id))
	}
	if pair, at, ok := h.installed(); ok {
		return d.finish(h, pair, at)
	}
	key, csr, err := d.begin(ctx, h)
	if err != nil {
		return err
	}
	if err := d.trusted(ctx, h); err != nil {
		return err
	}
	pair, err := d.sign(ctx, h, key, csr)
	if err != nil {
		return err
	}
	if err := d.deliver(h, pair); err != nil {
		return err
	}
	return d.finish(h, pair, now())
}

// installed returns the pair of the attempt under way, and when it was put in force, if it was: what was interrupted
// after that needs no signer.
func (h *held) installed() (pair request.Pair, at time.Time, ok bool) {
	h.files.Lock()
	defer h.files.Unlock()
	attempt, text, err := h.dir.InForce()
	if err != nil || attempt == "" || attempt != h.snapshot().Attempt {
		return request.Pair{}, time.Time{}, false
	}
	if pair, err = request.DecodePair(text, now()); err != nil {
		return request.Pair{}, time.Time{}, false
	}
	at, err = h.dir.InstalledAt()
	return pair, at, err == nil
}

// sign asks the signer and checks its answer. An answer that is of no use ends the attempt, unless time mends it.
func (d *Driver) sign(ctx context.Context, h *held, key crypto.Signer, csr []byte) (request.Pair, error) {
	ctx, cancel := answerable(ctx)
	defer cancel()
	asking := request.New(h.volume, h.snapshot().Attempt, csr)
	var err error
	if asking.Token, err = d.token(h); err != nil {
		return request.Pair{}, err
	}
	issued, err := d.Signer.Sign(ctx, asking)
	if err != nil {
		return request.Pair{}, err
	}
	h.files.Lock()
	_, before, err := h.inForce()
	h.files.Unlock()
	if err != nil {
		before = request.Pair{}
	}
	pair, err := request.Check(h.volume, before, key, issued, now())
	var early *request.NotYetValid
	switch {
	case errors.As(err, &early):
		return request.Pair{}, signer.Errorf(signer.NotYet, "%w", err)
	case err != nil:
		return request.Pair{}, signer.Errorf(signer.Failed, "the answer of %s %s is of no use: %w", h.volume.Issuer.Kind, h.volume.Issuer.Name, err)
	}
	return pair, nil
}

// answerable ends a little before ctx does: an answer that names the reason must still reach the kubelet.
func answerable(ctx context.Context) (context.Context, context.CancelFunc) {
	const margin = 3 * time.Second
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithTimeout(ctx, 2*time.Minute) // The kubelet's own (kubernetes pkg/volume/csi/csi_plugin.go, csiTimeout).
	}
	if time.Until(deadline) > 2*margin {
		deadline = deadline.Add(-margin)
	}
	return context.WithDeadline(ctx, deadline)
}

// begin is the attempt under way, or a new one. Its key lies in the volume before the record names the attempt,
// and the record before the signer sees it.
func (d *Driver) begin(ctx context.Context, h *held) (crypto.Signer, []byte, error) {
	lost := h.snapshot().Attempt
	if lost != "" && !d.overtaken(h) {
		if text, err := h.dir.PendingKey(); err == nil {
			if key, csr, err := request.DecodePending(text); err == nil {
				return key, csr, nil
			}
		}
	}
	if err := d.understand(ctx, h); err != nil {
		return nil, nil, err
	}
	key, csr, err := fresh(h)
	if err != nil {
		return nil, nil, err
	}
	return key, csr, h.update(func(r *files.Record) {
		d.retire(r, lost)
		r.Attempt = request.NewAttempt()
	})
}

// key is the key of a new attempt: a new one, unless the pod wants to keep the one that it has, and that is of the kind which it wants now.
func key(h *held) (crypto.Signer, error) {
	if h.volume.ReuseKey {
		h.files.Lock()
		_, text, err := h.dir.InForce()
		h.files.Unlock()
		if err == nil {
			if key, err := request.DecodeKey(text); err == nil && request.IsOfKind(key.Public(), h.volume.Key) {
				return key, nil
			}
		}
	}
	return request.NewKey(h.volume.Key)
}

// fresh is the key of a new attempt and its signing request, kept in the volume.
func fresh(h *held) (crypto.Signer, []byte, error) {
	key, err := key(h)
	if err != nil {
		return nil, nil, err
	}
	csr, err := request.CSR(h.volume, key)
	if err != nil {
		return nil, nil, err
	}
	pending, err := request.EncodePending(key, csr)
	if err != nil {
		return nil, nil, err
	}
	return key, csr, h.dir.WritePendingKey(pending)
}

// install puts the pair of an attempt and its CA certificates in force, with what is known of them: all at once.
func install(h *held, v volume.Volume, attempt string, pair request.Pair, known trust.Memory) error {
	knownText, err := known.Encode()
	if err != nil {
		return err
	}
	key, err := request.EncodeKey(pair.Key, v.Key.Encoding)
	if err != nil {
		return err
	}
	bundle, err := request.EncodePair(pair)
	if err != nil {
		return err
	}
	password, err := h.password(v)
	if err != nil {
		return err
	}
	set, err := files.Arrange(v, files.Content{
		Key: key, Bundle: bundle, Chain: pair.Chain.Certificates(), CA: pair.CA, Private: pair.Key, Password: password,
	})
	if err != nil {
		return err
	}
	return h.dir.Install(files.Generation{Attempt: attempt, Pair: bundle, Trust: knownText, Files: set, Owner: v.Owner})
}

// password is that of the volume's stores: the pod's, or that of its Secret, or Java's own default.
func (h *held) password(v volume.Volume) (string, error) {
	if v.Keystore.Password != "" {
		return v.Keystore.Password, nil
	}
	kept, err := h.dir.Password()
	return cmp.Or(kept, volume.StandardPassword), err
}

// finish ends an attempt whose pair is in force.
func (d *Driver) finish(h *held, pair request.Pair, received time.Time) error {
	leaf, end := pair.Chain.Leaf(), pair.Chain.End()
	h.have(leaf, pair.Chain.Begin(), end)
	before, renewAt := h.snapshot(), renewalAt(h, received, end)
	count := stalled(before, end, end.Sub(received) < h.volume.Duration*2/3)
	if count > 0 {
		if rested := sooner(received.Add(renew.Backoff(h.id, signer.Failed, count, true)), end); rested.After(renewAt) {
			renewAt = rested
		}
		pair.Warnings = append(pair.Warnings, endsSoon(pair.Chain))
	}
	err := h.update(func(r *files.Record) {
		d.retire(r, r.Attempt)
		r.Attempt, r.Failure, r.IssuedAt, r.EndsAt, r.RenewAt = "", nil, received, end, renewAt
		r.Stalled, r.Told = count, messages(pair.Warnings)
	})
	if err != nil {
		return err
	}
	if err := h.dir.RemovePendingKey(); err != nil {
		d.Log.Warn("the key of an attempt that is over stays in the volume until the next one", "volume", h.id, "error", err)
	}
	d.metrics.issuedAt(received, leaf)
	d.Log.Info("certificate issued", "volume", h.id, "pod", h.volume.Pod.Namespace+"/"+h.volume.Pod.Name,
		"serial", leaf.SerialNumber.Text(16), "notAfter", leaf.NotAfter, "chainEnds", end, "renewAt", renewAt)
	d.tellOf(h, before.Told, pair.Warnings)
	d.trim(h, d.KeepRequests)
	return nil
}

// stalled counts the answers in a row that ended no later than the pair before, and early for what was asked: their
// issuer, or one above it, ends soon and is not renewed.
func stalled(before files.Record, end time.Time, early bool) int {
	if before.EndsAt.IsZero() || end.After(before.EndsAt) || !early {
		return 0
	}
	return before.Stalled + 1
}

// endsSoon warns of such an answer.
func endsSoon(c chain.Chain) request.Warning {
	first := "it"
	if one := c.EndsWith(); !one.Equal(chain.Of(c.Leaf())) {
		first = one.String()
	}
	const format = "the new certificate is valid no longer than the one before: %s ends at %s; " +
		"renewals are tried at longer intervals until the issuer gives a later end"
	return request.Warning{Reason: "IssuerEndsSoon", Message: fmt.Sprintf(format, first, stamp(c.End()))}
}

// messages returns what the warnings say.
func messages(warnings []request.Warning) (all []string) {
	for _, w := range warnings {
		all = append(all, w.Message)
	}
	return all
}

// tellOf tells operator and pod's author of what is new among the warnings of an answer.
func (d *Driver) tellOf(h *held, told []string, warnings []request.Warning) {
	warnings = slices.DeleteFunc(warnings, func(w request.Warning) bool { return slices.Contains(told, w.Message) })
	for _, w := range warnings {
		d.Log.Warn("the issuer's answer is in force, with a reservation", "volume", h.id,
			"pod", h.volume.Pod.Namespace+"/"+h.volume.Pod.Name, "reason", w.Reason, "problem", w.Message)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if d.Events == nil || h.gone || len(warnings) == 0 {
		return
	}
	for _, w := range warnings {
		h.untell(w.Message, w)
	}
	d.warnings.Set(h.id, now(), time.Time{})
}

// renewalAt is when a certificate that was received at t is renewed.
func renewalAt(h *held, t, notAfter time.Time) time.Time {
	at := renew.At(h.id, t, notAfter, h.volume.RenewBefore)
	if h.volume.Window != nil {
		at = renew.Within(*h.volume.Window, h.id, t, at, notAfter)
	}
	return at
}

// fail writes down what an attempt met and for how long the volume backs off, and is the cause with what went wrong in doing so.
func (d *Driver) fail(h *held, cause error) error {
	kind := signer.KindOf(cause)
	d.metrics.failed.WithLabelValues(kind.String()).Inc()
	t := now()
	served := h.validAt(t)
	next := failure(h.id, h.snapshot().Failure, cause, t, served)
	err := h.update(func(r *files.Record) {
		r.Failure = next
		if kind.Ends() {
			d.retire(r, r.Attempt)
			r.Attempt = ""
		}
	})
	if err != nil {
		h.rest(next)
	}
	// A request that was refused is kept until the next one: its conditions say more than a message does.
	d.trim(h, max(d.KeepRequests, 1))
	return errors.Join(cause, err)
}

// failure is what the record says of a cause that was met at t after the last failure. A pod that is served has a valid
// pair. What ends attempts has a backoff of its own: an outage does not lengthen it, and only a success begins it anew.
func failure(id string, last *files.Failure, cause error, t time.Time, served bool) *files.Failure {
	kind := signer.KindOf(cause)
	f := &files.Failure{}
	if last != nil {
		*f = *last
	}
	f.Kind, f.Reason, f.Count, f.At = kind.String(), cause.Error(), f.Count+1, t
	count := &f.Waiting
	if kind.Ends() {
		count, f.Waiting = &f.Ended, 0
	}
	*count++
	f.RetryAt = t.Add(renew.Backoff(id, kind, *count, served))
	var early *request.NotYetValid
	if errors.As(cause, &early) {
		f.RetryAt = early.NotBefore.Add(-request.MaxSkew)
	}
	return f
}
