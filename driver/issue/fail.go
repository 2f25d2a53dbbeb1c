package issue

import (
	"errors"
	"fmt"
	"time"

	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/chain"
	"github.com/mayfly-csi/mayfly/signer/message"
)

// Fail records the failure of an attempt and how long the volume backs off. It returns a [BackoffError], joined with
// the error of recording it.
func (i *Issuer) Fail(v *store.Volume, cause error) error {
	kind := signer.KindOf(cause)
	i.failed.WithLabelValues(kind.String()).Inc()
	t := i.Clocks.Now()
	served := v.ValidAt(t)
	before := v.Record()
	next := failure(v.ID(), before.Failure, cause, t, served)
	next.Attempt = before.Attempt
	failed := func(r *store.Record) {
		if errors.Is(cause, errNoToken) && i.tokens.current(v.ID(), t) != "" { // A token came meanwhile.
			next.RetryAt = t
		}
		r.Failure = next
		if kind.Ends() {
			i.endAttempt(r)
		}
	}
	err := v.Update(failed)
	if err != nil { // Without a failure the volume would be due again at once, and ask for what was decided.
		v.Amend(failed)
	}
	i.await(v, cause)
	i.Clean(v)
	return errors.Join(BackoffError{*next}, err)
}

// failure returns the record of a failure at t after the last one. served says that the pod has a valid pair. Another
// kind of failure starts its backoff anew. Failures that end their attempt have one of their own: what happens between
// two of them neither lengthens nor resets it.
func failure(id string, last *store.Failure, cause error, t time.Time, served bool) *store.Failure {
	kind := signer.KindOf(cause)
	f := &store.Failure{}
	if last != nil {
		*f = *last
	}
	f.Kind, f.Count, f.At = kind.String(), f.Count+1, t
	f.Reason = message.Cut(cause.Error(), message.LongestReason)
	count := 1
	if kind.Ends() {
		if f.EndedBy == kind.String() {
			count += f.Ended
		}
		f.Ended, f.EndedBy, f.Waiting = count, kind.String(), 0
	} else {
		if last != nil && last.Kind == kind.String() {
			count += f.Waiting
		}
		f.Waiting = count
	}
	f.RetryAt = t.Add(renew.Backoff(id, kind, count, served))
	var early *request.NotYetValid
	if errors.As(cause, &early) && !kind.Ends() {
		f.RetryAt = early.ValidFrom()
	}
	return f
}

// The reasons of Events of failed attempts.
const (
	notIssued  = "CertificateNotIssued"
	notRenewed = "CertificateNotRenewed"
)

// eventThreshold is how long a volume backs off at least after a failure of which the pod gets an Event: what time
// mends sooner is nobody's trouble.
const eventThreshold = 30 * time.Second

// Report logs an attempt that failed in the background, and sends the pod an Event.
func (i *Issuer) Report(v *store.Volume, cause error) {
	asked, failure := v.Record().Asked, v.Record().Failure
	i.Log.Error("certificate not issued", v.Attr(), "error", message.Cut(cause.Error(), message.LongestReason))
	if failure == nil || failure.RetryAt.Sub(failure.At) < eventThreshold || v.Removed() {
		return
	}
	w := event.Warning{Reason: notIssued, Message: "the pod has no certificate"}
	switch pair, ok := v.Pair(); {
	case ok:
		w = event.Warning{Reason: notRenewed,
			Message: "the pod keeps its certificate, which " + chain.EndsAt(pair.NotAfter, i.Clocks.Now())}
	case !v.Spec().StartsWithout:
		return // The pod has not started: the kubelet sends an Event for each call that failed.
	}
	w.Message = fmt.Sprintf("%s; the next try is at %s; %s", failure.Reason, chain.Stamp(failure.RetryAt), w.Message)
	i.Events.Warn(asked, w.Reason, w, 0)
}

// Withdraw drops what Report could not send yet, as during an outage of the API server: it is over.
func (i *Issuer) Withdraw(v *store.Volume) {
	i.Events.Withdraw(v.ID(), notIssued)
	i.Events.Withdraw(v.ID(), notRenewed)
}

// A BackoffError is the error of a volume whose attempt failed, until the next one: the kubelet counts Events only if
// their texts are equal (k8s.io/client-go tools/record/events_cache.go).
type BackoffError struct{ store.Failure }

// Error returns the reason of the failure. Where the next try is not soon, it returns its number and time, too: both
// are the same until then.
func (e BackoffError) Error() string {
	if !e.Ends() {
		return e.Reason
	}
	return fmt.Sprintf("%s (%s; the next try is at %s)", e.Reason, e.Tries(), chain.Stamp(e.RetryAt))
}
