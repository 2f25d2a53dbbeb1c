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

// Fail records the failure of an attempt and how long the volume backs off. It returns the cause, joined with the
// error of recording it.
func (i *Issuer) Fail(v *store.Volume, cause error) error {
	kind := signer.KindOf(cause)
	i.failed.WithLabelValues(kind.String()).Inc()
	t := renew.Now()
	served := v.ValidAt(t)
	next := failure(v.ID(), v.Record().Failure, cause, t, served)
	err := v.Update(func(r *store.Record) {
		if errors.Is(cause, errNoToken) && i.tokens.fresh(v.ID()) { // A token came meanwhile.
			next.RetryAt = t
		}
		r.Failure = next
		if kind.Ends() {
			i.endAttempt(r)
		}
	})
	if err != nil { // Without a failure the volume would be due again at once.
		v.Amend(func(r *store.Record) { r.Failure = next })
	}
	// A refused request is kept until the next one: its conditions have more than the message.
	i.clean(v, max(i.KeepRequests, 1))
	return errors.Join(cause, err)
}

// failure returns the record of a failure at t after the last one. served says that the pod has a valid pair. Failures
// that end their attempt have a backoff of their own: an outage does not lengthen it, and only a success resets it.
func failure(id string, last *store.Failure, cause error, t time.Time, served bool) *store.Failure {
	kind := signer.KindOf(cause)
	f := &store.Failure{}
	if last != nil {
		*f = *last
	}
	f.Kind, f.Count, f.At = kind.String(), f.Count+1, t
	f.Reason = message.Cut(cause.Error(), message.LongestReason)
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
	spec, failure := v.Spec(), v.Record().Failure
	i.Log.Error("certificate not issued",
		"volume", v.ID(), "pod", spec.Pod.Namespace+"/"+spec.Pod.Name,
		"error", message.Cut(cause.Error(), message.LongestReason))
	if failure == nil || failure.RetryAt.Sub(failure.At) < eventThreshold || v.Removed() {
		return
	}
	w := event.Warning{Reason: notIssued, Message: "the pod has no certificate"}
	switch pair, ok := v.Pair(); {
	case ok:
		const format = "the pod keeps its certificate, which ends at %s"
		w = event.Warning{Reason: notRenewed, Message: fmt.Sprintf(format, chain.Stamp(pair.NotAfter))}
	case !spec.StartsWithout:
		return // The pod has not started: the kubelet sends an Event for each call that failed.
	}
	w.Message = fmt.Sprintf("%s; the next try is at %s; %s", failure.Reason, chain.Stamp(failure.RetryAt), w.Message)
	i.Events.Warn(v.ID(), spec.Pod, w.Reason, w, 0)
}

// withdraw drops what Report could not send yet, as during an outage of the API server: it is over.
func (i *Issuer) withdraw(v *store.Volume) {
	i.Events.Withdraw(v.ID(), notIssued)
	i.Events.Withdraw(v.ID(), notRenewed)
}

// A BackoffError is the error of a volume that backs off.
type BackoffError struct {
	store.Failure
	Now time.Time
}

// Error returns the reason of the last failure and the time of the next try.
func (e BackoffError) Error() string {
	wait := e.RetryAt.Sub(e.Now).Round(time.Second)
	return fmt.Sprintf("%s (%s; the next try is at %s, in %s)", e.Reason, e.Tries(), chain.Stamp(e.RetryAt), wait)
}
