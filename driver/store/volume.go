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

// A Volume is a volume of the state directory. Its methods are safe for concurrent use; some require its turn, or the
// lock on its files.
type Volume struct {
	id    string
	dir   files.Dir
	now   func() time.Time
	turn  chan struct{} // Full while an operation has the turn.
	files sync.Mutex    // See LockFiles; it is locked before mu.

	mu        sync.Mutex // Guards what follows; never held during a wait.
	spec      volume.Volume
	record    Record
	pair      *Validity // Of the pair in force; nil: there is none.
	removed   bool
	operation string             // The name of that which has the turn.
	cancel    context.CancelFunc // Cancels its context.
	missed    bool               // Try failed since the turn was taken.
	takeOvers int                // How many wait for the turn before all others.
	tried     chan struct{}      // Closed at the end of the next attempt.
}

// A Validity is the time during which all certificates of a pair's path are valid.
type Validity struct {
	NotBefore, NotAfter time.Time
	Serial              string // Of the leaf, in hexadecimal.
}

// ValidFrom returns from when on the pair counts as valid: the clock of who issued it may be ahead.
func (v Validity) ValidFrom() time.Time { return v.NotBefore.Add(-request.MaxSkew) }

// newVolume makes a volume without a record.
func newVolume(id string, dir files.Dir, now func() time.Time) *Volume {
	return &Volume{id: id, dir: dir, now: now, turn: make(chan struct{}, 1), tried: make(chan struct{})}
}

// ID returns the volume's id.
func (v *Volume) ID() string { return v.id }

// Spec returns the last resolution of what the pod asked for. Its ID is empty if there is none.
func (v *Volume) Spec() volume.Volume {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.spec
}

// SetSpec sets the resolution of what the pod asked for.
func (v *Volume) SetSpec(spec volume.Volume) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.spec = spec
}

// Removed reports whether the volume was removed from the store.
func (v *Volume) Removed() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.removed
}

// Pair returns the validity of the pair in force; ok is false if there is none.
func (v *Volume) Pair() (p Validity, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.pair == nil {
		return Validity{}, false
	}
	return *v.pair, true
}

// HasPair reports whether a pair is in force, valid or not.
func (v *Volume) HasPair() bool {
	_, ok := v.Pair()
	return ok
}

// ValidAt reports whether the pair in force is valid at t. See [Validity.ValidFrom].
func (v *Volume) ValidAt(t time.Time) bool {
	p, ok := v.Pair()
	return ok && p.NotAfter.After(t) && !p.ValidFrom().After(t)
}

// expiredAt reports whether the pair in force has ended at t.
func (v *Volume) expiredAt(t time.Time) bool {
	p, ok := v.Pair()
	return ok && !p.NotAfter.After(t)
}

// overdueAt reports whether the pair in force should have been renewed well before t. One that is valid only later has
// no time of its own for that.
func (v *Volume) overdueAt(t time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.pair != nil && !v.spec.Once && (v.record.Overdue(t) || v.pair.ValidFrom().After(t))
}

// SetPair sets the validity of the pair in force.
func (v *Volume) SetPair(leaf *x509.Certificate, begin, end time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.pair = &Validity{begin, end, leaf.SerialNumber.Text(16)}
}

// unsetPair records that no pair is in force.
func (v *Volume) unsetPair() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.pair = nil
}

// Known reports whether the record has what the pod asked for.
func (v *Volume) Known() bool { return v.Record().Asked.ID != "" }

// Record returns the record.
func (v *Volume) Record() Record {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.record
}

// Update changes the record, in the file first: what is not written did not happen. It does nothing to a volume that
// was removed, for no tmpfs is mounted any more. The change may not call a method of the volume.
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

// Amend changes the record in memory alone, where the file can't be written or need not be. The change may not call a
// method of the volume.
func (v *Volume) Amend(change func(*Record)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change(&v.record)
}
