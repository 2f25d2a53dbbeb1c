package issue

import (
	"context"
	"sync"
	"time"

	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/signer"
)

const (
	// concurrentForgets is how many volumes have requests removed at once.
	concurrentForgets = 16
	// forgetTimeout is how long the removal of one finished request may take.
	forgetTimeout = 30 * time.Second
)

// cleanup removes finished requests in the background: pods are answered first.
type cleanup struct {
	once  sync.Once
	slots chan struct{}
	ctx   context.Context
	stop  context.CancelFunc
	wait  sync.WaitGroup
}

func (c *cleanup) start() {
	c.once.Do(func() {
		c.slots = make(chan struct{}, concurrentForgets)
		c.ctx, c.stop = context.WithCancel(context.Background())
	})
}

// Close ends the removal of finished requests.
func (i *Issuer) Close() {
	i.cleanup.start()
	i.cleanup.stop()
	i.cleanup.wait.Wait()
}

// Clean has the signer forget all but the last requests of the volume, in the background.
func (i *Issuer) Clean(v *store.Volume) { i.clean(v, i.KeepRequests) }

func (i *Issuer) clean(v *store.Volume, keep int) {
	finished := v.Record().Finished
	if surplus := len(finished) - keep; surplus > 0 {
		i.forget(v, finished[:surplus])
	}
}

// Forget drops what is kept for a volume that was removed, and has the signer forget its requests.
func (i *Issuer) Forget(v *store.Volume, last store.Record) {
	i.tokens.set(v.ID(), Token{})
	i.endAttempt(&last)
	i.forget(v, last.Finished)
}

// forget has the signer forget attempts, and strikes those that it forgot from the record. What fails is tried again
// after the next attempt; when the pod is gone, the API server collects what it owned.
func (i *Issuer) forget(v *store.Volume, attempts []string) {
	forgetter, ok := i.Signer.(signer.Forgetter)
	if !ok || len(attempts) == 0 {
		return
	}
	pod := v.Spec().Pod
	i.cleanup.start()
	i.cleanup.wait.Go(func() {
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
			if err != nil {
				i.Log.Warn("a finished request was not removed", "volume", v.ID(), "error", err)
				continue
			}
			forgotten = append(forgotten, id)
		}
		if len(forgotten) == 0 {
			return
		}
		if err := v.Update(func(r *store.Record) { r.Forget(forgotten) }); err != nil {
			i.Log.Warn("the record still names a request that was removed", "volume", v.ID(), "error", err)
		}
	})
}
