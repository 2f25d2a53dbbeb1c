package issue

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/ca"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// heard passes on Events.
type heard chan event.Event

func (h heard) Send(_ context.Context, _ signer.Pod, e event.Event) error {
	h <- e
	return nil
}

// newVolume returns a volume and an issuer for it.
func newVolume(t *testing.T, wanted time.Time) (*Issuer, *store.Volume) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	i := New(Config{Log: log, Wanted: func(string) time.Time { return wanted }})
	t.Cleanup(i.Close)
	dir := t.TempDir()
	volumes, err := store.New(dir, time.Now, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := volumes.Get("csi-1")
	if err := os.Mkdir(dir+"/csi-1", 0o700); err != nil {
		t.Fatal(err)
	}
	return i, v
}

// sent returns the Event that do has sent to the volume's pod; the zero Event if none.
func sent(t *testing.T, i *Issuer, v *store.Volume, do func()) (found event.Event) {
	t.Helper()
	events := make(heard, 10)
	var err error
	if i.Events, err = event.NewQueue(events, renew.Clocks{}, i.Log); err != nil {
		t.Fatal(err)
	}
	do()
	i.Events.Note(volume.Asked{ID: v.ID()}, "~", "") // The last one, since Events that are due together are sent by topic.
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- i.Events.Run(ctx) }()
	for e := <-events; e.Reason != "~"; e = <-events {
		found = e
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := i.Events.Close(); err != nil {
		t.Error(err)
	}
	return found
}

// asked is what a pod asked for.
func asked() volume.Asked {
	return volume.Asked{ID: "csi-1", Asked: spec.Asked{Attributes: map[string]string{
		"csi.storage.k8s.io/pod.namespace": "shop", "csi.storage.k8s.io/pod.name": "web-0", "csi.storage.k8s.io/pod.uid": "7",
	}}}
}

// The end of a certificate is reported once, at its end and not before, in the past tense.
func TestReportEnd(t *testing.T) {
	made, err := ca.New("CA", time.Now(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	end := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	for name, row := range map[string]struct {
		record store.Record
		once   bool
		want   string
	}{
		"a failure": {
			store.Record{Failure: &store.Failure{Reason: "request denied: no", RetryAt: end.Add(time.Minute)}, Attempt: "a1"}, false,
			"the pod's certificate ended at 2026-06-01T12:00:00Z, before it was renewed; request denied: no; the next try is at 2026-06-01T12:01:00Z",
		},
		"no attempt yet": {store.Record{}, false, "the pod's certificate ended at 2026-06-01T12:00:00Z, before it was renewed"},
		"an attempt": {store.Record{Attempt: "a1"}, false,
			"the pod's certificate ended at 2026-06-01T12:00:00Z, before it was renewed; a request for the next one is under way"},
		"not renewed": {store.Record{}, true,
			`the pod's certificate ended at 2026-06-01T12:00:00Z, before it was renewed: its volume has renew: "false"`},
	} {
		t.Run(name, func(t *testing.T) {
			i, v := newVolume(t, time.Time{})
			report := func(at time.Time) event.Event { return sent(t, i, v, func() { i.ReportEnd(v, at) }) }
			v.SetSpec(volume.Volume{ID: "csi-1", Once: row.once})
			v.Amend(func(r *store.Record) { *r, r.Asked, r.EndsAt = row.record, asked(), end })
			if at, ok := EndOf(v); ok {
				t.Errorf("without a pair: %s", at)
			}
			v.SetPair(made.Certificate, end.Add(-time.Hour), end)
			if got := report(end.Add(-time.Second)); got != (event.Event{}) {
				t.Errorf("before the end: %v", got)
			}
			if at, ok := EndOf(v); !ok || !at.Equal(end) {
				t.Errorf("to be reported at %s, %t", at, ok)
			}
			if got, want := report(end), (event.Event{Type: "Warning", Reason: "CertificateExpired", Message: row.want}); got != want {
				t.Errorf("got  %v\nwant %v", got, want)
			}
			if got := report(end.Add(time.Second)); got != (event.Event{}) {
				t.Errorf("again: %v", got)
			}
			if at, ok := EndOf(v); ok {
				t.Errorf("to be reported again at %s", at)
			}
			v.SetPair(made.Certificate, end, end.Add(time.Hour))
			if at, ok := EndOf(v); !ok || !at.Equal(end.Add(time.Hour)) {
				t.Errorf("the next one is to be reported at %s, %t", at, ok)
			}
		})
	}
}

// A note tells of a renewal that somebody waited for, and of no other.
func TestNoteRenewal(t *testing.T) {
	end := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	before := end.Add(-time.Hour)
	const wished = "the certificate was renewed, as csi.mayfly.dev/renew-at asks; the new one ends at 2026-06-01T13:00:00Z"
	const late = "the certificate was renewed; the one before ended at 2026-06-01T12:00:00Z, the new one ends at 2026-06-01T13:00:00Z"
	for name, row := range map[string]struct {
		record   store.Record
		wanted   time.Time
		received time.Time
		want     string
	}{
		"nobody waited":          {store.Record{IssuedAt: before, EndsAt: end}, time.Time{}, end.Add(-time.Minute), ""},
		"the first certificate":  {store.Record{}, before, end, ""},
		"wished":                 {store.Record{IssuedAt: before, EndsAt: end}, before.Add(time.Second), before.Add(time.Minute), wished},
		"wished, and done":       {store.Record{IssuedAt: before, EndsAt: end}, before.Add(-time.Second), end.Add(-time.Minute), ""},
		"wished for later":       {store.Record{IssuedAt: before, EndsAt: end}, end.Add(time.Hour), end.Add(-time.Minute), ""},
		"after the end":          {store.Record{IssuedAt: before, EndsAt: end, ReportedEnd: end}, time.Time{}, end.Add(time.Minute), late},
		"after an end long past": {store.Record{IssuedAt: before, EndsAt: end, ReportedEnd: before}, time.Time{}, end.Add(-time.Minute), ""},
		"wished, after the end":  {store.Record{IssuedAt: before, EndsAt: end, ReportedEnd: end}, end, end.Add(time.Minute), late},
	} {
		t.Run(name, func(t *testing.T) {
			i, v := newVolume(t, row.wanted)
			v.Amend(func(r *store.Record) { r.Asked = asked() })
			note := func() { i.noteRenewal(v, row.record, row.received, end.Add(time.Hour)) }
			var want event.Event
			if row.want != "" {
				want = event.Event{Type: "Normal", Reason: "CertificateRenewed", Message: row.want}
			}
			if got := sent(t, i, v, note); got != want {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}

// The Event of a failed renewal says of a certificate's end whether it is past.
func TestReportTellsPastAndFuture(t *testing.T) {
	made, err := ca.New("CA", time.Now(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for want, end := range map[string]time.Time{
		"the pod keeps its certificate, which ended at ": time.Now().Add(-time.Minute),
		"the pod keeps its certificate, which ends at ":  time.Now().Add(time.Hour),
	} {
		i, v := newVolume(t, time.Time{})
		report := func() { i.Report(v, i.Fail(v, signer.Errorf(signer.Denied, "no"))) }
		v.Amend(func(r *store.Record) { r.Asked = asked() })
		v.SetPair(made.Certificate, end.Add(-time.Hour), end)
		if got := sent(t, i, v, report); got.Reason != notRenewed || !strings.Contains(got.Message, want) ||
			strings.Count(got.Message, "request denied: no") != 1 {
			t.Errorf("got %v, want %q", got, want)
		}
	}
}
