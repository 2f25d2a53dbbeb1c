package issue

import (
	"context"
	"sync"
	"time"

	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

const (
	// concurrentForgets is how many volumes' requests are deleted at once.
	concurrentForgets = 16
	// forgetTimeout is how long the deletion of one finished request may take.
	forgetTimeout = 30 * time.Second
)

// cleanup deletes finished requests in the background, so that calls do not wait for it.
type cleanup struct {
	slots chan struct{}
	ctx   context.Context
	stop  context.CancelFunc
	wait  sync.WaitGroup

	mu       sync.Mutex
	underWay map[string]bool // The ids of attempts whose requests are being deleted.
}

func newCleanup() *cleanup {
	c := &cleanup{slots: make(chan struct{}, concurrentForgets), underWay: map[string]bool{}}
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c
}

// begin returns those of the attempts whose requests are not being deleted. Call end once they are.
func (c *cleanup) begin(attempts []string) (begun []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range attempts {
		if !c.underWay[id] {
			begun = append(begun, id)
			c.underWay[id] = true
		}
	}
	return begun
}

// end ends what begin began.
func (c *cleanup) end(attempts []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range attempts {
		delete(c.underWay, id)
	}
}

// Close ends the deletion of finished requests, and waits a little for keys that are being made.
func (i *Issuer) Close() {
	i.waits.close()
	i.keys.close()
	i.cleanup.stop()
	i.cleanup.wait.Wait()
}

// Clean deletes all but the last requests of the volume that are to be kept, in the background. A refused request is
// kept until the next one: its conditions have more than the message, and say when another one would be approved.
func (i *Issuer) Clean(v *store.Volume) {
	r, keep := v.Record(), i.keep(v)
	if r.Failure != nil {
		keep = max(keep, 1)
	}
	if surplus := len(r.Finished) - keep; surplus > 0 {
		i.forget(v, r.Finished[:surplus])
	}
}

// keep returns how many finished requests of the volume are kept.
func (i *Issuer) keep(v *store.Volume) int {
	if i.KeepRequests != nil {
		return *i.KeepRequests
	}
	return volume.KeepRequests(v.Spec().Dialect)
}

// Forget removes the state of a volume that was removed from the store, and deletes its requests.
func (i *Issuer) Forget(v *store.Volume, last store.Record) {
	i.tokens.set(v.ID(), Token{})
	i.waits.end(v.ID())
	i.keys.forget(v.ID())
	i.silent.forget(v.ID())
	i.endAttempt(&last)
	i.forget(v, last.Finished)
}

// forget deletes the requests of attempts, and removes those attempts from the record. Failures are tried again after
// the next attempt; Kubernetes deletes what is left with the pod, which owns it.
func (i *Issuer) forget(v *store.Volume, attempts []string) {
	forgetter, ok := i.Signer.(signer.Forgetter)
	if !ok {
		return
	}
	attempts = i.cleanup.begin(attempts)
	if len(attempts) == 0 {
		return
	}
	pod := v.Record().Asked.Pod()
	i.cleanup.wait.Go(func() {
		defer i.cleanup.end(attempts)
		select {
		case i.cleanup.slots <- struct{}{}:
			defer func() { <-i.cleanup.slots }()
		case <-i.cleanup.ctx.Done():
			return
		}
		var forgotten []string
		for _, id := range attempts {
			ctx, cancel := context.WithTimeout(i.cleanup.ctx, forgetTimeout)
			err := forgetter.Forget(ctx, signer.Attempt{ID: id, Pod: pod})
			cancel()
			if err != nil && i.cleanup.ctx.Err() != nil { // The next process deletes what is on record.
				break
			}
			if err != nil {
				i.Log.Warn("a finished request was not removed", v.Attr(), "error", err)
				continue
			}
			forgotten = append(forgotten, id)
		}
		if len(forgotten) == 0 {
			return
		}
		if err := v.Update(func(r *store.Record) { r.Forget(forgotten) }); err != nil {
			i.Log.Warn("the record still names a request that was removed", v.Attr(), "error", err)
		}
	})
}
