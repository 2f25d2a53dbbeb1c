// Package issue has the steps of one attempt to get a certificate: begin, sign and check, finish or fail. The caller
// decides their order and puts the pair in force; see package driver.
//
// An attempt outlives a call and the process: its key is stored before the record names it, and the record before the
// request is sent to the signer.
package issue

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// Config configures an issuer. All fields are required but those that say otherwise.
type Config struct {
	Signer       signer.Signer
	KeepRequests *int                          // How many finished requests of a volume stay; nil: its dialect says.
	Wanted       func(podUID string) time.Time // When certificates of a pod are to be renewed; nil: nobody wishes that.
	Events       *event.Queue
	Clocks       renew.Clocks
	Metrics      prometheus.Registerer // nil: metrics are not registered.
	Log          *slog.Logger

	Due func(*store.Volume) // Called when the backoff of a volume has ended early.
}

// An Issuer makes attempts. Make one with [New], and close it when no attempt is under way.
type Issuer struct {
	Config

	issued, skewed prometheus.Counter
	failed         *prometheus.CounterVec
	tokens         tokens
	keys           *keys
	silent         silence
	cleanup        *cleanup
	waits          waits
}

// New makes an issuer. It panics if the registry has its metrics already.
func New(config Config) *Issuer {
	metrics := promauto.With(config.Metrics)
	i := &Issuer{
		Config:  config,
		cleanup: newCleanup(),
		keys:    newKeys(request.NewKey),
		issued: metrics.NewCounter(prometheus.CounterOpts{
			Name: "mayfly_certificates_issued_total",
			Help: "Certificates written into volumes, renewals included."}),
		skewed: metrics.NewCounter(prometheus.CounterOpts{
			Name: "mayfly_certificates_skewed_total",
			Help: "Certificates accepted although they begin up to 5 minutes after the node's time: " +
				"the clocks of signer and node differ."}),
		failed: metrics.NewCounterVec(prometheus.CounterOpts{
			Name: "mayfly_attempts_failed_total",
			Help: "Attempts that brought no certificate, by the kind of failure."}, []string{"kind"}),
	}
	for _, kind := range signer.Kinds() { // A rate needs the 0 before the first failure.
		i.failed.WithLabelValues(kind.String())
	}
	return i
}

// An Attempt is an attempt under way.
type Attempt struct {
	ID  string
	Key crypto.Signer
	CSR []byte
}

// Pending returns the attempt under way; ok is false if there is none, or its key can't be read.
func (i *Issuer) Pending(v *store.Volume) (a Attempt, ok bool) {
	a.ID = v.Record().Attempt
	if a.ID == "" {
		return Attempt{}, false
	}
	var err error
	a.Key, a.CSR, err = v.Pending()
	return a, err == nil
}

// Begin begins an attempt. It ends the one under way, if there is one, and deletes its request: nobody waits for that
// any more. It waits for the key until ctx ends.
func (i *Issuer) Begin(ctx context.Context, v *store.Volume) (a Attempt, err error) {
	a.ID = request.NewAttempt()
	if a.Key, err = i.newKey(ctx, v); err != nil {
		return Attempt{}, err
	}
	if a.CSR, err = v.Spec().CSR(a.Key); err != nil {
		return Attempt{}, err
	}
	// The one before ends on record before its key is replaced: a restart in between would go on with another key.
	if before := v.Record().Attempt; before != "" {
		if err := v.Update(i.endAttempt); err != nil {
			return Attempt{}, err
		}
		i.forget(v, []string{before})
	}
	if err := v.SetPending(a.Key, a.CSR); err != nil {
		return Attempt{}, err
	}
	return a, v.Update(func(r *store.Record) { r.Attempt = a.ID })
}

// newKey returns the key of a new attempt: a new one, unless the pod asks to reuse its key and that has the kind that
// it asks for.
func (i *Issuer) newKey(ctx context.Context, v *store.Volume) (crypto.Signer, error) {
	spec := v.Spec()
	if spec.ReuseKey {
		unlock := v.LockFiles()
		key, err := v.InstalledKey()
		unlock()
		if err == nil && spec.Key.Matches(key.Public()) {
			return key, nil
		}
	}
	return i.keys.get(ctx, v.ID(), spec.Pod.Namespace, spec.Key)
}

// Sign calls the signer and checks its answer. An unusable answer ends the attempt, unless it is valid later, before
// another attempt would be made.
func (i *Issuer) Sign(ctx context.Context, v *store.Volume, a Attempt) (request.Pair, error) {
	spec := v.Spec()
	asking := request.New(spec, a.ID, a.CSR)
	var err error
	if asking.Token, err = i.tokens.use(v.ID(), spec.AsPod, i.Clocks.Now()); err != nil {
		return request.Pair{}, err
	}
	issued, err := i.ask(ctx, v, asking)
	i.noteAnswer(ctx, v, err)
	switch {
	case err != nil && signer.KindOf(err) == signer.NotYet:
		return request.Pair{}, undecidedError{err, asking}
	case err != nil:
		return request.Pair{}, err
	}
	unlock := v.LockFiles()
	_, before, err := v.Installed()
	unlock()
	if err != nil {
		before = request.Pair{}
	}
	now := i.Clocks.Now()
	pair, err := request.Check(spec, before, a.Key, issued, now)
	var early *request.NotYetValid
	switch {
	case errors.As(err, &early) && !early.ValidFrom().After(now.Add(renew.LongestBackoff)):
		return request.Pair{}, signer.Errorf(signer.NotYet, "%w", err)
	case err != nil:
		return request.Pair{}, signer.Errorf(signer.Failed,
			"unusable certificate from %s %s: %w", spec.Issuer.Kind, spec.Issuer.Name, err)
	}
	return pair, nil
}

// ask returns the signer's decision: that of a wait in the background, or else what the signer answers now.
func (i *Issuer) ask(ctx context.Context, v *store.Volume, asking signer.Request) (signer.Issued, error) {
	if w := i.waits.end(v.ID()); w != nil && w.decided && w.attempt == asking.Attempt.ID {
		return w.issued, w.err
	}
	return i.Signer.Sign(ctx, asking)
}

// FinishInstalled finishes an attempt that was interrupted after its pair was put in force, without the signer. It
// reports whether there was such an attempt.
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

// Finish ends an attempt whose pair is in force, and schedules the renewal.
func (i *Issuer) Finish(v *store.Volume, pair request.Pair, received time.Time) error {
	leaf, end := pair.Chain.Leaf(), pair.Chain.End()
	v.SetPair(leaf, pair.Chain.Begin(), end)
	spec, before := v.Spec(), v.Record()
	rule := RenewalRule(spec)
	renewAt := rule.At(received, end)
	if rule.IsCut(received, end) && !spec.Once {
		pair.Warnings = append(pair.Warnings, cut(spec))
	}
	stalled := stalled(before, end, end.Sub(received) < spec.Duration*2/3)
	if stalled > 0 {
		backoff := renew.Backoff(v.ID(), signer.Failed, stalled, true)
		renewAt = renew.Later(renewAt, renew.Earlier(received.Add(backoff), end))
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
		i.Log.Warn("the key of a finished attempt was not removed", v.Attr(), "error", err)
	}
	i.issued.Inc()
	if leaf.NotBefore.After(received) {
		i.skewed.Inc()
	}
	i.Log.Info("certificate issued", v.Attr(), "serial", leaf.SerialNumber.Text(16), "notAfter", leaf.NotAfter,
		"chainEnds", end, "renewAt", renewAt)
	i.Withdraw(v)
	i.warn(v, before.Warned, pair.Warnings)
	i.noteRenewal(v, before, received, end)
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

// RenewalRule returns what the volume asks for about its renewals.
func RenewalRule(spec volume.Volume) renew.Rule {
	return renew.Rule{ID: spec.ID, Before: spec.RenewBefore, Part: spec.RenewPart, Window: spec.Window}
}

// cut returns the warning for a renew-before that is more than two thirds of a certificate's life.
func cut(spec volume.Volume) request.Warning {
	before := spec.RenewBefore.String()
	if spec.RenewPart > 0 {
		before = fmt.Sprintf("%d%%", spec.RenewPart)
	}
	const format = "renew-before is %s: the certificate would be renewed in the first third of its life; " +
		"it is renewed after that third"
	return request.Warning{Reason: "RenewBeforeCut", Message: fmt.Sprintf(format, before)}
}

// stalled returns how many answers in a row, this one included, ended no later than the pair before and earlier than
// requested: a CA of the path ends soon and was not renewed.
func stalled(before store.Record, end time.Time, early bool) int {
	if before.EndsAt.IsZero() || end.After(before.EndsAt) || !early {
		return 0
	}
	return before.Stalled + 1
}

// endsSoon returns the warning for a stalled answer.
func endsSoon(c chain.Chain) request.Warning {
	first := "it"
	if one := c.EndsWith(); !one.Equal(chain.Of(c.Leaf())) {
		first = one.String()
	}
	const format = "the new certificate is valid no longer than the one before: %s ends at %s; " +
		"renewals are tried at longer intervals until the issuer gives a later end"
	message := fmt.Sprintf(format, first, chain.Stamp(c.End()))
	return request.Warning{Reason: "IssuerEndsSoon", Message: message}
}

// messages returns the messages of the warnings.
func messages(warnings []request.Warning) (all []string) {
	for _, w := range warnings {
		all = append(all, w.Message)
	}
	return all
}

// warn logs and queues the warnings of an answer that were not sent before.
func (i *Issuer) warn(v *store.Volume, before []string, warnings []request.Warning) {
	for _, w := range warnings {
		if slices.Contains(before, w.Message) {
			continue
		}
		i.Log.Warn("certificate accepted with a warning", v.Attr(), "reason", w.Reason, "problem", w.Message)
		if !v.Removed() {
			i.Events.Warn(v.Record().Asked, w.Message, event.Warning(w), 0)
		}
	}
}
