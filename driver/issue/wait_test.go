package issue_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/issue"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// slow is a signer that does not decide as long as who asks waits in a call. A wait in the background gets what is sent.
type slow struct {
	waiting chan string // Gets the attempt of each wait.
	decide  chan error
	calls   map[string]bool
}

func (s *slow) Sign(ctx context.Context, r signer.Request) (signer.Issued, error) {
	if !s.calls[r.Attempt.ID] {
		s.calls[r.Attempt.ID] = true
		return signer.Issued{}, signer.Errorf(signer.NotYet, "nobody has approved it yet")
	}
	s.waiting <- r.Attempt.ID
	select {
	case err := <-s.decide:
		return signer.Issued{}, err
	case <-ctx.Done():
		s.waiting <- "ended"
		return signer.Issued{}, signer.Errorf(signer.NotYet, "nobody has approved it yet")
	}
}

type waiting struct {
	*issue.Issuer
	t      *testing.T
	signer *slow
	dir    string
	store  *store.Store
	due    chan string
}

func newWaiting(t *testing.T) waiting {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	queue, err := event.NewQueue(nil, renew.Clocks{}, log)
	if err != nil {
		t.Fatal(err)
	}
	w := waiting{t: t, dir: t.TempDir(), due: make(chan string, 200)}
	w.signer = &slow{make(chan string, 400), make(chan error), map[string]bool{}}
	if w.store, err = store.New(w.dir, time.Now, log, nil); err != nil {
		t.Fatal(err)
	}
	due := func(v *store.Volume) { w.due <- v.ID() }
	w.Issuer = issue.New(issue.Config{Signer: w.signer, Events: queue, Log: log, Due: due})
	t.Cleanup(func() {
		w.Close()
		if err := queue.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// volume makes a volume that has only its directory.
func (w waiting) volume(id string) *store.Volume {
	w.t.Helper()
	if err := os.Mkdir(filepath.Join(w.dir, id), 0o700); err != nil {
		w.t.Fatal(err)
	}
	return w.store.Get(id)
}

// backsOff makes a volume whose attempt is under way and backs off.
func (w waiting) backsOff(id string) *store.Volume {
	w.t.Helper()
	v := w.volume(id)
	if err := v.Update(func(r *store.Record) { r.Attempt = "of" + id }); err != nil {
		w.t.Fatal(err)
	}
	w.try(v)
	if !v.Record().Failure.RetryAt.After(time.Now()) {
		w.t.Error("the volume does not back off")
	}
	return v
}

// try calls the signer, which has not decided.
func (w waiting) try(v *store.Volume) {
	w.t.Helper()
	_, err := w.Sign(w.t.Context(), v, issue.Attempt{ID: v.Record().Attempt})
	if signer.KindOf(err) != signer.NotYet {
		w.t.Fatalf("signed: %v", err)
	}
	_ = w.Fail(v, err)
}

func (w waiting) expect(from chan string, want string) {
	w.t.Helper()
	if got := <-from; got != want {
		w.t.Errorf("got %s, want %s", got, want)
	}
}

func TestADecisionEndsTheBackoff(t *testing.T) {
	for name, decision := range map[string]error{
		"signed":  nil, // Without a certificate: unusable.
		"refused": signer.Errorf(signer.Denied, "no"),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWaiting(t)
			v := w.backsOff("csi-1")
			w.expect(w.signer.waiting, "ofcsi-1")
			w.signer.decide <- decision
			w.expect(w.due, "csi-1")
			calls := len(w.signer.calls)
			if _, err := w.Sign(t.Context(), v, issue.Attempt{ID: v.Record().Attempt}); signer.KindOf(err) == signer.NotYet {
				t.Errorf("the decision is not used: %v", err)
			}
			if len(w.signer.calls) != calls || len(w.signer.waiting) > 0 {
				t.Error("the signer was asked again")
			}
			if r := v.Record(); r.Failure.RetryAt.After(time.Now()) || r.Failure.Count != 1 {
				t.Errorf("the record: %+v", r.Failure)
			}
		})
	}
}

func TestWhatEndsAWait(t *testing.T) {
	w := newWaiting(t)
	away := w.backsOff("csi-1")
	w.expect(w.signer.waiting, "ofcsi-1")
	w.signer.decide <- signer.Errorf(signer.Unavailable, "the API server is away")

	again := w.backsOff("csi-2")
	w.expect(w.signer.waiting, "ofcsi-2")
	w.signer.calls["ofcsi-2"] = false
	w.try(again) // It waits itself, and then in the background again.
	if got := []string{<-w.signer.waiting, <-w.signer.waiting}; got[0] == got[1] {
		t.Errorf("got %s twice", got[0])
	}
	w.Forget(again, again.Record())
	w.expect(w.signer.waiting, "ended")

	other := w.backsOff("csi-3")
	w.expect(w.signer.waiting, "ofcsi-3")
	if err := other.Update(func(r *store.Record) { r.Attempt = "another" }); err != nil {
		t.Fatal(err)
	}
	w.signer.decide <- nil

	w.backsOff("csi-4")
	w.expect(w.signer.waiting, "ofcsi-4")
	w.Close()
	w.expect(w.signer.waiting, "ended")
	if len(w.due) > 0 {
		t.Errorf("%s is due", <-w.due)
	}
	if !away.Record().Failure.RetryAt.After(time.Now()) {
		t.Error("the backoff ended")
	}
}

// A refusal that can be mended ends the backoff when it is, and only its own.
func TestWhatIsMendedEndsTheBackoff(t *testing.T) {
	for name, row := range map[string]struct {
		err error
		due bool
	}{
		"mended":           {nil, true},
		"not to be mended": {errors.New("the right is granted"), false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWaiting(t)
			v := w.volume("csi-1")
			mended := make(chan error)
			refused := signer.Errorf(signer.Denied, "no right")
			refused.Mended = func(ctx context.Context, _ func() signer.Token) error {
				select {
				case err := <-mended:
					return err
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			_ = w.Fail(v, refused)
			mended <- row.err
			if row.due {
				w.expect(w.due, "csi-1")
			}
			w.Close()
			if f := v.Record().Failure; f.RetryAt.Sub(f.At) <= 5*time.Second != row.due || len(w.due) > 0 {
				t.Errorf("the backoff takes %s", f.RetryAt.Sub(f.At))
			}
		})
	}
}

func TestWaitsAreBounded(t *testing.T) {
	const most = 128
	w := newWaiting(t)
	for n := range most {
		w.backsOff(fmt.Sprintf("csi-%d", n))
		<-w.signer.waiting
	}
	w.backsOff("csi-more")
	w.signer.decide <- nil
	<-w.due
	select {
	case id := <-w.signer.waiting:
		t.Errorf("%s is waited for", id)
	default:
	}
}

func TestAFailureOfAnotherStepWaitsForNothing(t *testing.T) {
	w := newWaiting(t)
	v := w.volume("csi-1")
	if err := w.Fail(v, signer.Errorf(signer.NotYet, "a trust source is missing")); err == nil || errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	w.Close()
	if len(w.signer.waiting) > 0 {
		t.Errorf("%s is waited for", <-w.signer.waiting)
	}
}

// The attempt before is over on record when its key may be another one: here the next key can't be written.
func TestTheAttemptBeforeEndsFirst(t *testing.T) {
	w := newWaiting(t)
	v := w.volume("csi-1") // Its tmpfs is missing.
	if err := v.Update(func(r *store.Record) { r.Attempt = "before" }); err != nil {
		t.Fatal(err)
	}
	v.SetSpec(volume.Volume{Spec: spec.Spec{Key: spec.Key{Algorithm: spec.ECDSA, Size: 256}}})
	if _, err := w.Begin(t.Context(), v); err == nil || !strings.Contains(err.Error(), "tmpfs") {
		t.Errorf("begun: %v", err)
	}
	if got := v.Record().Attempt; got != "" {
		t.Errorf("attempt %s is on record", got)
	}
}
