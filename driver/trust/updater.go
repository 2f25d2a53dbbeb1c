package trust

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// Sources knows the sources of CA certificates beside the issuers.
type Sources interface {
	// Follow watches the source until stop is called, and calls changed after each change of what Answer says.
	Follow(source volume.Source, changed func()) (stop func())
	// Answer is what a source that is followed has.
	Answer(source volume.Source) Answer
}

const (
	// concurrentUpdates is how many volumes get other CA certificates at once: that is work for the processor, and for
	// no longer than a moment.
	concurrentUpdates = 8
	// retryDelay is after how long files are written again that could not be written.
	retryDelay = time.Minute
	// warningDelay is for how long a source is in trouble before its pods are told: a bundle that is replaced is gone
	// for a moment, and an API server that starts refuses what it will grant.
	warningDelay = 10 * time.Second
)

// An Updater brings the CA certificates of volumes to what their sources have: with a new pair, and beside the pair in
// force when a source changes or an old root's time is over. Make one with [NewUpdater], run it once and close it.
type Updater struct {
	sources Sources // nil: issuers alone are sources.
	store   *store.Store
	events  *event.Queue
	log     *slog.Logger
	updated func() // Called after each change without a new pair.
	queue   *renew.ClockQueue

	stopping context.Context // Of the waits.
	stop     context.CancelFunc

	mu      sync.Mutex
	volumes map[string]*followed
}

// followed is the state of one volume.
type followed struct {
	sources []volume.Source
	stop    func()        // Ends the watches.
	memory  *Memory       // What is known; nil: it is in a file. The volume's files must be locked, too.
	changed chan struct{} // Closed when a source changes; nil: nobody waits.
	stale   bool          // A source changed, and that was not looked at yet.
}

// NewUpdater makes an updater of the store's volumes.
func NewUpdater(
	sources Sources, volumes *store.Store, events *event.Queue, log *slog.Logger, updated func(),
) (u *Updater, err error) {
	u = &Updater{sources: sources, store: volumes, events: events, log: log, updated: updated, volumes: map[string]*followed{}}
	u.stopping, u.stop = context.WithCancel(context.Background())
	u.queue, err = renew.NewClockQueue(math.MaxFloat64, concurrentUpdates, u.update)
	return u, err
}

// Run updates volumes until ctx ends.
func (u *Updater) Run(ctx context.Context) error { return u.queue.Run(ctx) }

// Stop ends the waits for sources.
func (u *Updater) Stop() { u.stop() }

// Close ends all watches, and frees the queue's clock.
func (u *Updater) Close() error {
	u.stop()
	for _, v := range u.store.All() {
		u.Forget(v.ID())
	}
	return u.queue.Close()
}

// Follow watches the sources of the volume, in place of those that it had.
func (u *Updater) Follow(v *store.Volume) {
	sources := v.Spec().Trust
	u.mu.Lock()
	f := u.of(v.ID())
	same := slices.Equal(f.sources, sources)
	f.sources = sources
	u.mu.Unlock()
	if same {
		return
	}
	var stops []func()
	for _, s := range sources {
		if s.Kind != volume.IssuerSource && u.sources != nil {
			stops = append(stops, u.sources.Follow(s, func() { u.notice(v) }))
		}
	}
	u.mu.Lock()
	before := f.stop
	f.stop = func() {
		for _, stop := range stops {
			stop()
		}
	}
	u.mu.Unlock()
	if before != nil { // Later: a source that stays is watched on.
		before()
	}
	if v.HasPair() { // A volume without one looks for itself.
		u.notice(v)
	}
}

// Forget ends what Follow began.
func (u *Updater) Forget(id string) {
	u.mu.Lock()
	f := u.volumes[id]
	delete(u.volumes, id)
	u.queue.Remove(id)
	u.mu.Unlock()
	if f != nil && f.stop != nil {
		f.stop()
	}
}

// of returns the state of a volume. The lock must be held.
func (u *Updater) of(id string) *followed {
	if u.volumes[id] == nil {
		u.volumes[id] = &followed{}
	}
	return u.volumes[id]
}

// notice plans the update of a volume one of whose sources changed, and wakes who waits for that.
func (u *Updater) notice(v *store.Volume) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f := u.volumes[v.ID()]
	if f == nil {
		return
	}
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
	f.stale = true
	u.queue.Set(v.ID(), time.Now(), time.Time{})
}

// plan has the volume looked at then, unless that happens sooner.
func (u *Updater) plan(id string, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if f := u.volumes[id]; f != nil && !f.stale && !at.IsZero() {
		u.queue.Set(id, at, time.Time{})
	}
}

// nextChange returns a channel that is closed when a source of the volume changes.
func (u *Updater) nextChange(id string) <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	f := u.of(id)
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.changed
}

// answer returns what a source has.
func (u *Updater) answer(s volume.Source) Answer {
	if u.sources == nil {
		return Answer{Err: errors.New("this driver knows no source but the issuer")}
	}
	return u.sources.Answer(s)
}

// A missing source is one of which a pod that has not begun has no CA certificates. Time may mend that, as it may a
// request that is not signed yet.
type missing struct {
	source  volume.Source
	trouble string
}

// Error names the source and what is wrong with it.
func (e missing) Error() string { return fmt.Sprintf("trust source %s: %s", e.source, e.trouble) }

// Unwrap makes it an error that time may mend.
func (e missing) Unwrap() error { return signer.Errorf(signer.NotYet, "%s", e.Error()) }

// Wait waits until each source of the volume has said what it has: no pod begins with some of its CA certificates. One
// that has begun goes on with those that it has. The volume's turn must be held.
func (u *Updater) Wait(ctx context.Context, v *store.Volume) error {
	if v.HasPair() {
		return nil
	}
	for {
		changed := u.nextChange(v.ID())
		lacking := u.lacking(v)
		if lacking == nil || u.sources == nil {
			return lacking
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return lacking
		case <-u.stopping.Done():
			return lacking
		}
	}
}

// lacking says which source the volume has nothing of. What the others said counts even if they are gone before the
// certificate is there.
func (u *Updater) lacking(v *store.Volume) error {
	defer v.LockFiles()()
	spec := v.Spec()
	m := u.memory(v, spec).Hear(spec.Trust, u.answer, nil, time.Now())
	u.keep(v.ID(), &m)
	if source, trouble, ok := m.Lacking(spec.Trust); ok {
		return missing{source, trouble}
	}
	return nil
}

// Install puts the pair of an attempt in force, with the CA certificates as they are now. The volume's turn must be
// held.
func (u *Updater) Install(v *store.Volume, attempt string, pair request.Pair) error {
	defer v.LockFiles()()
	spec, now := v.Spec(), time.Now()
	before := u.memory(v, spec)
	after := before.Hear(spec.Trust, u.answer, nil, now).Issued(spec.Trust, pair.CA, pair.Chain.Certificates(), now)
	after, err := install(v, spec, attempt, pair, after, after.Roots(spec.Trust, now))
	if err != nil {
		return err
	}
	if !v.HasPair() {
		before = Memory{} // The pod was told nothing yet.
	}
	u.installed(v, spec, before, after)
	return nil
}

// update is what the queue calls: the sources have changed, or an old root's time is over.
func (u *Updater) update(_ context.Context, id string) {
	v := u.store.Find(id)
	if v == nil {
		return
	}
	if err := u.refresh(v); err != nil {
		u.log.Error("CA certificates not changed", "volume", id, "error", err)
		u.plan(id, time.Now().Add(retryDelay))
	}
}

// refresh brings the CA certificates of the pod to what they are now, beside the pair that it has.
func (u *Updater) refresh(v *store.Volume) error {
	defer v.LockFiles()()
	u.look(v.ID())
	spec := v.Spec()
	if v.Removed() || spec.ID == "" {
		return nil
	}
	attempt, pair, err := v.Installed()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // The first pair brings them.
	}
	if err != nil {
		return err
	}
	now := time.Now()
	before := u.memory(v, spec)
	after := before.Hear(spec.Trust, u.answer, pair.Chain.Certificates(), now)
	roots := after.Roots(spec.Trust, now)
	if (after.Complete(spec.Trust) || before.Knows()) && !after.Shows(roots) {
		if after, err = install(v, spec, attempt, pair, after, roots); err != nil {
			return err
		}
		u.updated()
		u.log.Info("CA certificates changed", "volume", v.ID(), "pod", spec.Pod.Namespace+"/"+spec.Pod.Name,
			"certificates", len(roots))
	} else if err := write(v, after); err != nil {
		return err
	}
	u.installed(v, spec, before, after)
	return nil
}

// look notes that what changes from now on was not looked at.
func (u *Updater) look(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if f := u.volumes[id]; f != nil {
		f.stale = false
	}
}

// install puts a pair in force with CA certificates, and returns what is known of these then.
func install(
	v *store.Volume, spec volume.Volume, attempt string, pair request.Pair, known Memory, roots chain.Bundle,
) (Memory, error) {
	pair.CA, known = roots, known.Show(roots)
	text, err := known.Encode()
	if err != nil {
		return Memory{}, err
	}
	return known, v.Install(spec, attempt, pair, text)
}

// write keeps what is known of the CA certificates in force.
func write(v *store.Volume, m Memory) error {
	text, err := m.Encode()
	if err != nil {
		return err
	}
	return v.SetTrust(text)
}

// installed keeps in memory what is known, plans the end of old roots, and queues warnings of what is new among the
// troubles of sources.
func (u *Updater) installed(v *store.Volume, spec volume.Volume, before, after Memory) {
	if len(after.Troubles()) > 0 { // Its certificates may be no other volume's: what a source said last, all share.
		u.keep(v.ID(), nil)
	} else {
		u.keep(v.ID(), &after)
	}
	u.plan(v.ID(), after.NextEnd(spec.Trust, time.Now()))
	u.warn(v, "TrustBundleKept", before.Troubles(), after.Troubles())
	u.warn(v, "TrustBundleUnchecked", before.Unparsed(), after.Unparsed())
}

// warn queues a warning of each source about which something else is to be said now than before.
func (u *Updater) warn(v *store.Volume, reason string, before, after map[string]string) {
	for source := range before {
		if after[source] == "" {
			u.events.Withdraw(v.ID(), reason+" "+source)
		}
	}
	for source, message := range after {
		if message != before[source] && !v.Removed() {
			u.events.Warn(v.ID(), v.Spec().Pod, reason+" "+source, event.Warning{Reason: reason, Message: message}, warningDelay)
		}
	}
}

// keep keeps what is known of a volume's CA certificates; nil: it is in a file.
func (u *Updater) keep(id string, m *Memory) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.of(id).memory = m
}

// memory returns what is known of the volume's CA certificates. A volume of an older driver, or one whose record is
// lost, is known by what its pod has. The files must be locked.
func (u *Updater) memory(v *store.Volume, spec volume.Volume) Memory {
	u.mu.Lock()
	kept := u.of(v.ID()).memory
	u.mu.Unlock()
	if kept != nil {
		return *kept
	}
	text, err := v.Trust()
	if err == nil {
		var m Memory
		if m, err = Decode(text); err == nil {
			return m
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		u.log.Error("what is known of a volume's CA certificates is taken from its files", "volume", v.ID(), "error", err)
	}
	return fromFiles(v, spec)
}

// fromFiles returns what the CA certificates say that the pod has, where a file of them is among its files.
func fromFiles(v *store.Volume, spec volume.Volume) Memory {
	_, pair, err := v.Installed()
	if err != nil {
		return Memory{}
	}
	var text []byte
	for _, name := range slices.Sorted(maps.Keys(spec.Files)) {
		if spec.Files[name] == volume.CAPart {
			text, err = v.InstalledFile(name)
			break
		}
	}
	ca, parseErr := chain.Parse(text)
	if err != nil || parseErr != nil {
		return Memory{}
	}
	return Found(spec.Trust, chain.Unite(ca), pair.Chain.Certificates(), time.Now())
}

// InTrouble returns how many of the sources that volumes use are in trouble. That their API server does not answer is
// not trouble.
func (u *Updater) InTrouble() (n int) {
	for s := range u.used() {
		if err := u.answer(s).Err; err != nil && !errors.Is(err, ErrNoAnswer) {
			n++
		}
	}
	return n
}

// used returns the sources that volumes use.
func (u *Updater) used() map[volume.Source]bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	used := map[volume.Source]bool{}
	for _, f := range u.volumes {
		for _, s := range f.sources {
			if s.Kind != volume.IssuerSource {
				used[s] = true
			}
		}
	}
	return used
}
