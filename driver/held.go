package driver

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/driver/trust"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// A held volume is one that the state directory has, or is about to have.
type held struct {
	id   string
	dir  files.Dir
	turn chan struct{} // Who has put something in works on the volume.

	// Over the pod's files and what is known of its CA certificates, for moments: the turn may be held for minutes.
	// It is locked before mu.
	files  sync.Mutex
	memory *trust.Memory // What is known; nil: it is in a file.

	mu     sync.Mutex // Over what follows; never held during a wait.
	volume volume.Volume
	record files.Record
	pair   *validity          // What the pod has; nil: nothing.
	cancel context.CancelFunc // Ends the background work under way.
	end    chan struct{}      // Closed at the end of the next attempt.
	gone   bool               // Removed: whoever finds it looks again.
	missed bool               // It was due while something was at work on it.

	awaits   error              // What is against asking for the certificate.
	unexpect context.CancelFunc // Ends the waiting for that to change.
	expected bool               // It has changed.

	token     token                      // Of the pod, with which to ask.
	tokenless bool                       // The next attempt waits for one.
	followed  []volume.Source            // Where its CA certificates come from.
	unfollow  func()                     // Ends that; nil: nothing to end.
	news      chan struct{}              // Closed when one of them says something else; nil: nobody waits.
	stale     bool                       // One of them said something that was not looked at yet.
	untold    map[string]request.Warning // What the pod is to be told, by what it is about.
}

// A validity is the part of a chain that is worth keeping in memory: from when until when all certificates of its
// path are valid, and the leaf's serial number.
type validity struct {
	notBefore, notAfter time.Time
	serial              string
}

// have says what pair the pod has now, and when the path from it to its CA is valid.
func (h *held) have(leaf *x509.Certificate, begin, end time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pair = &validity{begin, end, leaf.SerialNumber.Text(16)}
}

// find is the held volume, nil if there is none.
func (d *Driver) find(id string) *held {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.held[id]
}

// hold is the held volume, a new one if there is none.
func (d *Driver) hold(id string) *held { return d.holdIn(d.StateDir, id) }

// holdIn is the held volume, a new one in a state directory if there is none.
func (d *Driver) holdIn(stateDir, id string) *held {
	d.mu.Lock()
	defer d.mu.Unlock()
	h, ok := d.held[id]
	if !ok {
		h = &held{id: id, dir: files.Dir(filepath.Join(stateDir, id)), turn: make(chan struct{}, 1), end: make(chan struct{})}
		d.held[id] = h
	}
	return h
}

// close is the last record: what would change it from now on has no effect, and so writes nothing where no tmpfs is mounted any more.
func (h *held) close() files.Record {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = true
	if h.unexpect != nil {
		h.unexpect()
	}
	close(h.end)
	h.end = make(chan struct{})
	return h.record
}

// reopen takes close back, for a volume that could not be removed.
func (h *held) reopen() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = false
}

// drop forgets the held volume, which is closed. Its turn must be held.
func (d *Driver) drop(h *held) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.held, h.id)
}

// take waits for the volume's turn. Release it with [Driver.release].
func (h *held) take(ctx context.Context) error {
	select {
	case h.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the work on volume %s: %w", h.id, ctx.Err())
	}
}

// takeNow takes the turn if nobody has it; otherwise who has it is told that something is due.
func (h *held) takeNow() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case h.turn <- struct{}{}:
		return true
	default:
		h.missed = true
		return false
	}
}

// release gives the turn back, and has the queue look again at what was due meanwhile.
func (d *Driver) release(h *held) {
	h.mu.Lock()
	missed := h.missed
	h.missed = false
	<-h.turn
	h.mu.Unlock()
	if missed {
		d.schedule(h)
	}
}

// nextEnd is closed at the end of the next attempt. With the volume's turn held none can be missed.
func (h *held) nextEnd() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.end
}

// ended tells those who wait that an attempt has ended.
func (h *held) ended() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.end)
	h.end = make(chan struct{})
}

// interrupt ends the background work on the volume, if there is any.
func (h *held) interrupt() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cancel != nil {
		h.cancel()
	}
}

// validAt reports whether the volume has a pair that is valid at t, a begin that is within the clock's skew included.
func (h *held) validAt(t time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pair != nil && h.pair.notAfter.After(t) && !h.pair.notBefore.After(t.Add(request.MaxSkew))
}

// known reports whether the record says what was asked.
func (h *held) known() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.record.Asked.ID != ""
}

// has reports whether the volume has a pair, valid or not.
func (h *held) has() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pair != nil
}

// pod is the volume's.
func (h *held) pod() signer.Pod {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.volume.Pod
}

// snapshot is the record as it is now.
func (h *held) snapshot() files.Record {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.record
}

// update changes the record, in the file first: what is not written did not happen.
func (h *held) update(change func(*files.Record)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone {
		return nil
	}
	next := h.record
	change(&next)
	if err := h.dir.WriteRecord(next); err != nil {
		return err
	}
	h.record = next
	return nil
}

// rest keeps in memory a failure that can't be written: without it the volume would be due again at once.
func (h *held) rest(f *files.Failure) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.record.Failure = f
}

// all are the held volumes.
func (d *Driver) all() []*held {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Values(d.held))
}
