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

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// Sources provides the sources of CA certificates other than issuers.
type Sources interface {
	// Follow watches the source until stop is called, and calls changed after each change of its Answer.
	Follow(source volume.Source, changed func()) (stop func())
	// Answer returns the last answer of a source that is followed.
	Answer(source volume.Source) Answer
}

const (
	// concurrentUpdates is how many volumes are updated at once. An update is short and bound by the processor.
	concurrentUpdates = 8
	// retryDelay is the delay after an update that failed.
	retryDelay = time.Minute
	// warningDelay is how long a problem with a source lasts before its pods get a warning: a bundle that is replaced
	// is absent for a moment, and an API server that starts refuses requests that it will later grant.
	warningDelay = 10 * time.Second
)

// An Updater writes the CA certificates of volumes: with a new pair, and next to the pair in force when a source or the
// operator's list of distrusted certificates changes, or one of them ends. Make one with [NewUpdater], run it once
// and close it.
type Updater struct {
	sources Sources // nil: issuers are the only sources.
	store   *store.Store
	events  *event.Queue
	clocks  renew.Clocks
	log     *slog.Logger
	updated prometheus.Counter
	queue   *renew.ClockQueue

	mu      sync.Mutex
	volumes map[string]*followed
	list    list
}

// followed is the state of one volume.
type followed struct {
	sources   []volume.Source
	stop      func()        // Ends the watches.
	memory    *Memory       // nil: it is in a file. The volume's files must be locked, too.
	changed   chan struct{} // Closed when a source changes; nil: no Wait is running.
	unapplied bool          // A source or the operator's list changed since the last update began.
	distrust  distrust
}

// NewUpdater makes an updater of the store's volumes. It panics if the registry has its metrics already; a nil one
// gets none.
func NewUpdater(
	sources Sources, volumes *store.Store, events *event.Queue, clocks renew.Clocks, log *slog.Logger,
	registry prometheus.Registerer,
) (u *Updater, err error) {
	u = &Updater{
		sources: sources, store: volumes, events: events, clocks: clocks, log: log, volumes: map[string]*followed{},
	}
	u.addMetrics(promauto.With(registry))
	u.queue, err = clocks.NewQueue(math.MaxFloat64, concurrentUpdates, u.update)
	return u, err
}

// addMetrics makes the updater's metrics.
func (u *Updater) addMetrics(metrics promauto.Factory) {
	u.updated = metrics.NewCounter(prometheus.CounterOpts{
		Name: "mayfly_trust_changes_total",
		Help: "Changes of the CA certificates in volumes without a new certificate."})
	metrics.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mayfly_trust_sources_in_trouble",
		Help: "Sources of CA certificates, of those that volumes of this node use, " +
			"that are missing or unusable now."},
		func() float64 { return float64(u.failingSources()) })
	metrics.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mayfly_trust_roots_expired",
		Help: "CA certificates that have expired, of the sources that volumes of this node use: " +
			"they are left out of volumes that have others."},
		func() float64 { return float64(u.expiredRoots()) })
	u.addListMetrics(metrics)
}

// Run updates volumes until ctx ends.
func (u *Updater) Run(ctx context.Context) error { return u.queue.Run(ctx) }

// Stuck returns why volumes are not updated any more; see [renew.Watchdog.Stuck].
func (u *Updater) Stuck(limit time.Duration) error { return u.queue.Stuck(limit) }

// Close ends all watches, and frees the queue's clock.
func (u *Updater) Close() error {
	for _, v := range u.store.All() {
		u.Forget(v.ID())
	}
	return u.queue.Close()
}

// Follow watches the sources that the volume has now, and no longer those that it had before.
func (u *Updater) Follow(v *store.Volume) {
	sources := v.Spec().Trust
	u.mu.Lock()
	f := u.state(v.ID())
	same := slices.Equal(f.sources, sources)
	f.sources = sources
	u.mu.Unlock()
	if same {
		return
	}
	var stops []func()
	for _, s := range sources {
		if shared(s) && u.sources != nil {
			stops = append(stops, u.sources.Follow(s, func() { u.sourceChanged(v) }))
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
	if before != nil { // After the new ones: a source that stays is watched throughout.
		before()
	}
	if v.HasPair() && !u.resume(v, sources) { // A volume without one reads them in Wait.
		u.sourceChanged(v)
	}
}

// resume schedules the next update of a volume whose files need none now, and reports whether it has done that.
func (u *Updater) resume(v *store.Volume, sources []volume.Source) bool {
	defer v.LockFiles()()
	text, err := v.Trust()
	if err != nil {
		return false
	}
	now := u.clocks.Now()
	at, ok := nextUpdate(text, sources, now)
	if ok {
		u.schedule(v.ID(), at, now)
	}
	return ok
}

// Forget ends the watches of a volume and removes its state.
func (u *Updater) Forget(id string) {
	u.mu.Lock()
	f := u.volumes[id]
	delete(u.volumes, id)
	u.queue.Remove(id)
	u.logApplied()
	u.mu.Unlock()
	if f != nil && f.stop != nil {
		f.stop()
	}
}

// state returns the state of a volume, a new one if there is none. u.mu must be held.
func (u *Updater) state(id string) *followed {
	if u.volumes[id] == nil {
		u.volumes[id] = &followed{}
	}
	return u.volumes[id]
}

// sourceChanged schedules an update of the volume and wakes up Wait.
func (u *Updater) sourceChanged(v *store.Volume) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f := u.volumes[v.ID()]
	if f == nil {
		return
	}
	f.wakeUp()
	u.changed(v.ID(), f)
}

// changed schedules an update of the volume now. u.mu must be held.
func (u *Updater) changed(id string, f *followed) {
	f.unapplied = true
	u.queue.Set(id, renew.Entry{At: u.clocks.Now()})
}

// wakeUp wakes up Wait. The updater's mu must be held.
func (f *followed) wakeUp() {
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// schedule schedules an update of the volume at the time that was derived at now, unless one is due already.
func (u *Updater) schedule(id string, at, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if f := u.volumes[id]; f != nil && !f.unapplied && !at.IsZero() {
		u.queue.Set(id, renew.Entry{At: at, Since: now})
	}
}

// nextChange returns a channel that is closed when a source of the volume or the operator's list changes.
func (u *Updater) nextChange(id string) <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	f := u.state(id)
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.changed
}

// answer returns what a source has.
func (u *Updater) answer(s volume.Source) Answer {
	if u.sources == nil {
		return Answer{Err: errors.New("this driver has no source but the issuer")}
	}
	return u.sources.Answer(s)
}

// answers returns what the sources of a volume have. The text of a file counts where it is passed on as it is.
func (u *Updater) answers(spec volume.Volume) func(volume.Source) Answer {
	asIs := volume.TrustAsIs(spec.Dialect)
	return func(s volume.Source) Answer {
		a := u.answer(s)
		if !asIs {
			a.Text = nil
		}
		return a
	}
}

// A missingError is the error of a source that was never read, without which no pod starts. It is tried again, like a
// request that is not signed yet.
type missingError struct {
	source  volume.Source
	problem string
}

// Error names the source and what is wrong with it.
func (e missingError) Error() string { return fmt.Sprintf("trust source %s: %s", e.source, e.problem) }

// Unwrap returns it as an error of kind NotYet.
func (e missingError) Unwrap() error { return signer.Errorf(signer.NotYet, "%s", e.Error()) }

// Wait waits until each source of the volume was read: no pod starts with only some of its CA certificates, or with
// those alone that the operator distrusts. A volume that has a pair does not wait. The volume's turn must be held.
func (u *Updater) Wait(ctx context.Context, v *store.Volume) error {
	if v.HasPair() {
		return nil
	}
	for {
		changed := u.nextChange(v.ID())
		final := u.sources == nil && u.currentList().known
		err := u.checkSources(v)
		if err == nil || final {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return u.checkSources(v) // What was read last may tell more than that nothing was read.
		}
	}
}

// checkSources returns an error if a source of the volume was never read. What was read from the others is kept,
// should they be removed before the certificate is issued.
func (u *Updater) checkSources(v *store.Volume) error {
	defer v.LockFiles()()
	spec := v.Spec()
	now := u.clocks.Now()
	m := u.memory(v, spec).Distrust(u.currentList().distrusted).Update(spec.Trust, u.answers(spec), nil, now)
	u.setMemory(v.ID(), &m)
	if source, problem, ok := m.Missing(spec.Trust); ok {
		return missingError{source, problem}
	}
	return u.checkFirst(m, spec.Trust, now)
}

// Install puts the pair of an attempt in force, with the current CA certificates. An error of a pair that the
// operator's list excludes is of kind Failed, and leaves all as it is. The volume's turn must be held.
func (u *Updater) Install(v *store.Volume, attempt string, pair request.Pair) error {
	defer v.LockFiles()()
	spec, now := v.Spec(), u.clocks.Now()
	before := u.memory(v, spec)
	after := before.Distrust(u.currentList().distrusted).Update(spec.Trust, u.answers(spec), nil, now).
		Issued(spec.Trust, pair.CA, pair.Chain.Certificates(), now, pair.Chain.Checks(MaxChecks))
	if err := checkPair(v, spec, after, now); err != nil {
		return err
	}
	after, err := u.install(v, spec, attempt, pair, after, after.Roots(spec.Trust, now), now)
	if err != nil {
		return err
	}
	if !v.HasPair() {
		before = Memory{} // The pod got no warnings yet.
	}
	u.installed(v, spec, before, after, now)
	return nil
}

// setMemory caches the memory of a volume; nil: it is read from its file.
func (u *Updater) setMemory(id string, m *Memory) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.state(id).memory = m
}

// memory returns the memory of a volume: cached, from its file, or, for a volume of an older driver or without a
// readable record, from the pod's files. The files must be locked.
func (u *Updater) memory(v *store.Volume, spec volume.Volume) Memory {
	u.mu.Lock()
	cached := u.state(v.ID()).memory
	u.mu.Unlock()
	if cached != nil {
		return *cached
	}
	text, err := v.Trust()
	if err == nil {
		var m Memory
		if m, err = Decode(text); err == nil {
			return m
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		u.log.Error("record of CA certificates unreadable: rebuilt from files", v.Attr(), "error", err)
	}
	return fromFiles(v, spec, u.clocks.Now())
}

// fromFiles returns the memory that follows from the pod's file of CA certificates, if it has one.
func fromFiles(v *store.Volume, spec volume.Volume, now time.Time) Memory {
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
	return FromFiles(spec.Trust, chain.Unite(ca), pair.Chain.Certificates(), now)
}

// failingSources returns how many of the sources that volumes use can't be read or used. An API server that does not
// answer is not counted.
func (u *Updater) failingSources() (n int) {
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
			if shared(s) {
				used[s] = true
			}
		}
	}
	return used
}
