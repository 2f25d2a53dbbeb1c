package issue

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/signer"
)

// concurrentWaits is how many requests are waited for while their volumes back off. The signer holds a watch for each;
// a volume beyond them is tried again at the end of its backoff.
const concurrentWaits = 128

// waits holds the waits for decisions on the requests of volumes that back off. A wait takes no turn and no worker.
type waits struct {
	mu    sync.Mutex
	all   map[string]*wait // By the volume's id.
	group sync.WaitGroup
}

// A wait is that for one attempt. It ends with its context, or with a decision, which the next try of the attempt gets.
type wait struct {
	attempt string
	ctx     context.Context
	cancel  context.CancelFunc

	decided bool
	issued  signer.Issued
	err     error
}

// begin begins a wait of a volume that has none; nil: there are concurrentWaits.
func (w *waits) begin(id, attempt string) *wait {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.all) >= concurrentWaits {
		return nil
	}
	if w.all == nil {
		w.all = map[string]*wait{}
	}
	one := &wait{attempt: attempt}
	one.ctx, one.cancel = context.WithCancel(context.Background())
	w.all[id] = one
	return one
}

// end ends the volume's wait and returns it; nil: there is none.
func (w *waits) end(id string) *wait {
	w.mu.Lock()
	defer w.mu.Unlock()
	one := w.all[id]
	w.remove(id, one)
	return one
}

// remove removes a wait unless another one has its place. w.mu must be held.
func (w *waits) remove(id string, one *wait) {
	if one != nil && w.all[id] == one {
		one.cancel()
		delete(w.all, id)
	}
}

// decide stores what a wait brought if it is a decision, and reports whether it is one for which the wait still was.
// Without one, the signer could not be reached or waits no longer.
func (w *waits) decide(id string, one *wait, issued signer.Issued, err error) (decided bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all[id] != one {
		return false
	}
	if err != nil && !signer.KindOf(err).Ends() {
		w.remove(id, one)
		return false
	}
	one.issued, one.err, one.decided = issued, err, true
	return true
}

// finish removes a wait that is over, and reports whether it was not ended before.
func (w *waits) finish(id string, one *wait) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.remove(id, one)
	return w.all[id] == one
}

// close ends all waits.
func (w *waits) close() {
	w.mu.Lock()
	for _, one := range w.all {
		one.cancel()
	}
	w.mu.Unlock()
	w.group.Wait()
}

// An undecidedError is the error of a request on which the signer has not decided yet.
type undecidedError struct {
	error
	request signer.Request
}

// Unwrap returns the signer's error.
func (e undecidedError) Unwrap() error { return e.error }

// await waits in the background for what ends the backoff of a volume early: that the signer decides on its request, or
// that what the signer refused it for is mended.
func (i *Issuer) await(v *store.Volume, cause error) {
	var undecided undecidedError
	var refused *signer.Error
	switch {
	case errors.As(cause, &undecided):
		i.awaitDecision(v, undecided.request)
	case errors.As(cause, &refused) && refused.Mended != nil:
		i.awaitMended(v, refused.Mended)
	}
}

// awaitDecision waits until the signer decides on a request.
func (i *Issuer) awaitDecision(v *store.Volume, request signer.Request) {
	i.inBackground(v, request.Attempt.ID, func(one *wait) {
		issued, err := i.Signer.Sign(one.ctx, request)
		if i.waits.decide(v.ID(), one, issued, err) {
			i.endBackoff(v, i.Clocks.Now(), func(r store.Record) bool { return r.Attempt == request.Attempt.ID })
		}
	})
}

// awaitMended waits until what a request was refused for is mended.
func (i *Issuer) awaitMended(v *store.Volume, mended func(context.Context, func() signer.Token) error) {
	failed := v.Record().Failure.At
	i.inBackground(v, "", func(one *wait) {
		err := mended(one.ctx, func() signer.Token { return i.tokens.current(v.ID(), i.Clocks.Now()) })
		if i.waits.finish(v.ID(), one) && err == nil {
			at := renew.Later(i.Clocks.Now(), failed.Add(renew.ShortestRest))
			i.endBackoff(v, at, func(r store.Record) bool { return r.Failure.At.Equal(failed) })
		}
	})
}

// Resume waits for what ends the backoff of a volume early that an earlier process left: its signer says what became of
// the last attempt. A refusal of which nothing is left may be mended: the volume is due.
func (i *Issuer) Resume(v *store.Volume) {
	signs, ok := i.Signer.(signer.Rememberer)
	r := v.Record()
	if !ok || r.Failure == nil || r.Failure.Kind != signer.Denied.String() || r.Failure.Attempt == "" {
		return
	}
	attempt := signer.Attempt{ID: r.Failure.Attempt, Pod: v.Spec().Pod}
	i.awaitMended(v, func(ctx context.Context, token func() signer.Token) error {
		err := signs.Refused(ctx, attempt)
		var refused *signer.Error
		if errors.As(err, &refused) && refused.Mended != nil {
			return refused.Mended(ctx, token)
		}
		return err
	})
}

// inBackground begins a wait of the volume, unless there are too many.
func (i *Issuer) inBackground(v *store.Volume, attempt string, f func(*wait)) {
	if one := i.waits.begin(v.ID(), attempt); one != nil {
		i.waits.group.Go(func() { f(one) })
	}
}

// endBackoff makes the volume due at a time, if it backs off for longer and its record is such.
func (i *Issuer) endBackoff(v *store.Volume, at time.Time, such func(store.Record) bool) {
	if r := v.Record(); r.Failure == nil || !such(r) {
		return
	}
	err := v.Update(func(r *store.Record) {
		if r.Failure != nil && such(*r) {
			failure := *r.Failure
			failure.RetryAt = renew.Earlier(failure.RetryAt, at)
			r.Failure = &failure
		}
	})
	if err != nil {
		i.Log.Warn("the backoff of a volume does not end early", v.Attr(), "error", err)
	}
	i.Due(v)
}
