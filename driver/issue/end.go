package issue

import (
	"fmt"
	"time"

	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/signer/chain"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// The reasons of Events of a certificate's end and of what somebody waited for.
const (
	expired = "CertificateExpired"
	renewed = "CertificateRenewed"
)

// EndOf returns when to call [Issuer.ReportEnd] for the volume; ok is false if there is no end to report, or its pod is
// not known.
func EndOf(v *store.Volume) (end time.Time, ok bool) {
	pair, ok := v.Pair()
	return pair.NotAfter, ok && v.Known() && !v.Removed() && !v.Record().ReportedEnd.Equal(pair.NotAfter)
}

// ReportEnd logs that the pair in force has ended, and sends the pod an Event: once for each pair, whatever restarts
// come. It does nothing before the end.
func (i *Issuer) ReportEnd(v *store.Volume, now time.Time) {
	end, ok := EndOf(v)
	if !ok || end.After(now) || !i.recordEnd(v, end) {
		return
	}
	i.Log.Error("certificate expired", v.Attr(), "notAfter", end)
	i.Events.Warn(v.Record().Asked, expired, event.Warning{Reason: expired, Message: endMessage(v, end)}, 0)
}

// recordEnd records the end that is about to be reported. It reports whether that is the first time.
func (i *Issuer) recordEnd(v *store.Volume, end time.Time) (first bool) {
	reported := func(r *store.Record) { r.ReportedEnd, first = end, !r.ReportedEnd.Equal(end) }
	if err := v.Update(reported); err != nil {
		i.Log.Warn("the end of a certificate may be reported again", v.Attr(), "error", err)
		v.Amend(reported)
	}
	return first
}

// endMessage says that the pair in force ended, and why there is no other. It may be read much later.
func endMessage(v *store.Volume, end time.Time) string {
	message := fmt.Sprintf("the pod's certificate ended at %s, before it was renewed", chain.Stamp(end))
	record := v.Record()
	switch failure := record.Failure; {
	case failure != nil:
		const format = "%s; %s; the next try is at %s"
		return fmt.Sprintf(format, message, failure.Reason, chain.Stamp(failure.RetryAt))
	case record.Attempt != "":
		return message + "; a request for the next one is under way"
	case v.Spec().Once:
		return message + ": its volume has renew: \"false\""
	}
	return message
}

// noteRenewal sends the pod an Event of a renewal that somebody waited for: one that was wished, or that came after the
// end of the pair before. received is when the new pair was received, and end when it ends.
func (i *Issuer) noteRenewal(v *store.Volume, before store.Record, received, end time.Time) {
	asked := v.Record().Asked
	switch wanted := i.wantedAt(v.Spec().Pod.UID); {
	case before.IssuedAt.IsZero() || v.Removed():
	case before.ReportedEnd.Equal(before.EndsAt) && !before.EndsAt.IsZero() && !before.EndsAt.After(received):
		const format = "the certificate was renewed; the one before ended at %s, the new one ends at %s"
		i.Events.Note(asked, renewed, fmt.Sprintf(format, chain.Stamp(before.EndsAt), chain.Stamp(end)))
	case wanted.After(before.IssuedAt) && !wanted.After(received):
		const format = "the certificate was renewed, as %srenew-at asks; the new one ends at %s"
		i.Events.Note(asked, renewed, fmt.Sprintf(format, spec.Prefix, chain.Stamp(end)))
	}
}

// wantedAt returns when the certificates of a pod are to be renewed; zero: nobody wishes that.
func (i *Issuer) wantedAt(podUID string) time.Time {
	if i.Wanted == nil {
		return time.Time{}
	}
	return i.Wanted(podUID)
}
