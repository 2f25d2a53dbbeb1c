// Package issue has the steps of one attempt to get a certificate: begin, sign and check, finish or fail. Between them
// the caller waits for what it needs, and puts the pair in force; see package driver for the order.
//
// An attempt outlives a call and the process: its key lies in the volume before the record names it, and the record
// before the signer sees it.
package issue

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// Metrics counts what became of attempts.
type Metrics interface {
	Issued(received time.Time, leaf *x509.Certificate)
	Failed(kind signer.Kind)
}

// An Issuer makes attempts. All fields are required. Close it when no attempt is under way.
type Issuer struct {
	Signer       signer.Signer
	KeepRequests int // How many finished requests a volume keeps at its signer.
	Events       *event.Queue
	Metrics      Metrics
	Log          *slog.Logger

	tokens  tokens
	cleanup cleanup
}

// An Attempt is one under way.
type Attempt struct {
	ID  string
	Key crypto.Signer
	CSR []byte
}

// Pending returns the attempt that is under way; ok is false if there is none, or what it needs is lost.
func (i *Issuer) Pending(v *store.Volume) (a Attempt, ok bool) {
	a.ID = v.Record().Attempt
	if a.ID == "" {
		return Attempt{}, false
	}
	var err error
	a.Key, a.CSR, err = v.Pending()
	return a, err == nil
}

// Begin begins an attempt, in place of one that is under way.
func (i *Issuer) Begin(v *store.Volume) (a Attempt, err error) {
	a.ID = request.NewAttempt()
	if a.Key, err = newKey(v); err != nil {
		return Attempt{}, err
	}
	if a.CSR, err = request.CSR(v.Spec(), a.Key); err != nil {
		return Attempt{}, err
	}
	if err := v.SetPending(a.Key, a.CSR); err != nil {
		return Attempt{}, err
	}
	return a, v.Update(func(r *store.Record) {
		i.endAttempt(r)
		r.Attempt = a.ID
	})
}

// newKey returns the key of a new attempt: a new one, unless the pod wants to keep the one that it has, and that is of
// the kind which it wants now.
func newKey(v *store.Volume) (crypto.Signer, error) {
	spec := v.Spec()
	if spec.ReuseKey {
		unlock := v.LockFiles()
		key, err := v.InstalledKey()
		unlock()
		if err == nil && request.IsOfKind(key.Public(), spec.Key) {
			return key, nil
		}
	}
	return request.NewKey(spec.Key)
}

// Sign asks the signer and checks its answer. An unusable answer ends the attempt, unless time mends it.
func (i *Issuer) Sign(ctx context.Context, v *store.Volume, a Attempt) (request.Pair, error) {
	spec := v.Spec()
	asking := request.New(spec, a.ID, a.CSR)
	var err error
	if asking.Token, err = i.tokens.use(v.ID(), spec.AsPod); err != nil {
		return request.Pair{}, err
	}
	issued, err := i.Signer.Sign(ctx, asking)
	if err != nil {
		return request.Pair{}, err
	}
	unlock := v.LockFiles()
	_, before, err := v.Installed()
	unlock()
	if err != nil {
		before = request.Pair{}
	}
	pair, err := request.Check(spec, before, a.Key, issued, now())
	var early *request.NotYetValid
	switch {
	case errors.As(err, &early):
		return request.Pair{}, signer.Errorf(signer.NotYet, "%w", err)
	case err != nil:
		return request.Pair{}, signer.Errorf(signer.Failed,
			"unusable certificate from %s %s: %w", spec.Issuer.Kind, spec.Issuer.Name, err)
	}
	return pair, nil
}

// FinishInstalled finishes an attempt that was interrupted after its pair was put in force: that needs no signer. It
// reports whether there was one.
func (i *Issuer) FinishInstalled(v *store.Volume) (finished bool, err error) {
	unlock := v.LockFiles()
	attempt, pair, err := v.Installed()
	unlock()
	if err != nil || attempt == "" || attempt != v.Record().Attempt {
		return false, nil //nolint:nilerr // The signer is asked for what can't be read.
	}
	at, err := v.InstalledAt()
	if err != nil {
		return false, nil //nolint:nilerr // As above.
	}
	return true, i.Finish(v, pair, at)
}

// Finish ends an attempt whose pair is in force, and plans the renewal.
func (i *Issuer) Finish(v *store.Volume, pair request.Pair, received time.Time) error {
	leaf, end := pair.Chain.Leaf(), pair.Chain.End()
	v.SetPair(leaf, pair.Chain.Begin(), end)
	spec, before, renewAt := v.Spec(), v.Record(), RenewalAt(v, received, end)
	stalled := stalled(before, end, end.Sub(received) < spec.Duration*2/3)
	if stalled > 0 {
		renewAt = later(renewAt, sooner(received.Add(renew.Backoff(v.ID(), signer.Failed, stalled, true)), end))
		pair.Warnings = append(pair.Warnings, endsSoon(pair.Chain))
	}
	err := v.Update(func(r *store.Record) {
		i.endAttempt(r)
		r.Failure, r.IssuedAt, r.EndsAt, r.RenewAt = nil, received, end, renewAt
		r.Stalled, r.Warned = stalled, messages(pair.Warnings)
	})
	if err != nil {
		return err
	}
	if err := v.RemovePending(); err != nil {
		i.Log.Warn("the key of a finished attempt stays in the volume until the next one", "volume", v.ID(), "error", err)
	}
	i.Metrics.Issued(received, leaf)
	i.Log.Info("certificate issued", "volume", v.ID(), "pod", spec.Pod.Namespace+"/"+spec.Pod.Name,
		"serial", leaf.SerialNumber.Text(16), "notAfter", leaf.NotAfter, "chainEnds", end, "renewAt", renewAt)
	i.withdraw(v)
	i.warn(v, before.Warned, pair.Warnings)
	i.Clean(v)
	return nil
}

// endAttempt ends the attempt under way, if there is one.
func (i *Issuer) endAttempt(r *store.Record) {
	if _, ok := i.Signer.(signer.Forgetter); ok {
		r.Finish(r.Attempt)
	}
	r.Attempt = ""
}

// RenewalAt returns when a certificate is renewed that was received at t and whose path ends at end.
func RenewalAt(v *store.Volume, t, end time.Time) time.Time {
	spec := v.Spec()
	at := renew.At(v.ID(), t, end, spec.RenewBefore)
	if spec.Window != nil {
		at = renew.Within(*spec.Window, v.ID(), t, at, end)
	}
	return at
}

// stalled counts the answers in a row that ended no later than the pair before, and early for what was asked: their
// issuer, or one above it, ends soon and is not renewed.
func stalled(before store.Record, end time.Time, early bool) int {
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
	message := fmt.Sprintf(format, first, c.End().UTC().Format(time.RFC3339))
	return request.Warning{Reason: "IssuerEndsSoon", Message: message}
}

// messages returns what the warnings say.
func messages(warnings []request.Warning) (all []string) {
	for _, w := range warnings {
		all = append(all, w.Message)
	}
	return all
}

// warn logs and queues those warnings of an answer that are new.
func (i *Issuer) warn(v *store.Volume, before []string, warnings []request.Warning) {
	pod := v.Spec().Pod
	for _, w := range warnings {
		if slices.Contains(before, w.Message) {
			continue
		}
		i.Log.Warn("a certificate is in force, with a reservation", "volume", v.ID(),
			"pod", pod.Namespace+"/"+pod.Name, "reason", w.Reason, "problem", w.Message)
		if !v.Removed() {
			i.Events.Warn(v.ID(), pod, w.Message, event.Warning(w), 0)
		}
	}
}

// now returns the wall clock: what certificates are compared with, and what a record keeps.
func now() time.Time { return time.Now().Round(0) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func sooner(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
