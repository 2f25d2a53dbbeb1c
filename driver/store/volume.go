package store

import (
	"context"
	"crypto/x509"
	"sync"
	"time"

	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/driver/volume"
)

// A Volume is one that the state directory has, or is about to have. Its methods may be called at any time; those that
// say so demand its turn, or the lock on its files.
type Volume struct {
	id    string
	dir   files.Dir
	turn  chan struct{} // Full while somebody has it.
	files sync.Mutex    // See LockFiles; it is locked before mu.

	mu        sync.Mutex // Over what follows; never held during a wait.
	spec      volume.Volume
	record    Record
	pair      *Validity // What the pod has; nil: nothing.
	removed   bool
	operation string             // Of who has the turn.
	cancel    context.CancelFunc // Ends that.
	missed    bool               // Try failed since the turn was taken.
	tried     chan struct{}      // Closed at the end of the next attempt.
}

// A Validity says from when until when all certificates of a pair's path are valid, and names the pair.
type Validity struct {
	NotBefore, NotAfter time.Time
	Serial              string // Of the leaf, in hexadecimal.
}

func newVolume(id string, dir files.Dir) *Volume {
	return &Volume{id: id, dir: dir, turn: make(chan struct{}, 1), tried: make(chan struct{})}
}

// ID returns the volume's id.
func (v *Volume) ID() string { return v.id }

// Spec returns what the pod asked for, as it was resolved last. Its ID is empty if that is not known.
func (v *Volume) Spec() volume.Volume {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.spec
}

// SetSpec says what the pod asked for.
func (v *Volume) SetSpec(spec volume.Volume) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.spec = spec
}

// Removed reports whether nothing is left of the volume: who found it before looks again.
func (v *Volume) Removed() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.removed
}

// Pair returns how long the pair that the pod has is valid; ok is false if it has none.
func (v *Volume) Pair() (p Validity, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.pair == nil {
		return Validity{}, false
	}
	return *v.pair, true
}

// HasPair reports whether the pod has a pair, valid or not.
func (v *Volume) HasPair() bool {
	_, ok := v.Pair()
	return ok
}

// ValidAt reports whether the pod has a pair that is valid at t. One that begins within the clocks' skew counts.
func (v *Volume) ValidAt(t time.Time) bool {
	p, ok := v.Pair()
	return ok && p.NotAfter.After(t) && !p.NotBefore.After(t.Add(request.MaxSkew))
}

// SetPair says what pair the pod has.
func (v *Volume) SetPair(leaf *x509.Certificate, begin, end time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.pair = &Validity{begin, end, leaf.SerialNumber.Text(16)}
}

// Known reports whether the record says what was asked.
func (v *Volume) Known() bool { return v.Record().Asked.ID != "" }

// Record returns the record.
func (v *Volume) Record() Record {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.record
}

// Update changes the record, in the file first: what is not written did not happen. It does nothing to a volume that
// was removed, for no tmpfs is mounted any more. The change calls none of the volume's methods: its lock is held.
func (v *Volume) Update(change func(*Record)) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.removed {
		return nil
	}
	next := v.record
	change(&next)
	if err := WriteRecord(v.dir, next); err != nil {
		return err
	}
	v.record = next
	return nil
}

// Amend changes the record in memory alone, where the file can't be written or need not be. See Update for the change.
func (v *Volume) Amend(change func(*Record)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change(&v.record)
}
