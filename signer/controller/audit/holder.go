package audit

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// LeaseName is the name of the Lease whose holder records the certificates that cert-manager writes, and decides on
// requests before the others do.
const LeaseName = "mayfly-controller-audit"

// How long a holder is one without renewing the Lease, and when it is renewed: as controller-runtime has it.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

// A Holder competes for the Lease. A nil Holder never holds it. Make one with [NewHolder].
type Holder struct {
	log   *Log
	lock  *lock
	began time.Time
	term  atomic.Pointer[context.Context] // It ends with the time in which the Lease is held.
}

// NewHolder makes a competitor for the Lease of a namespace; the identity is the replica's own. It panics if the
// registry of the Log has its metrics already.
func NewHolder(leases coordinationv1.LeasesGetter, namespace, identity string, log *Log) *Holder {
	h := &Holder{log: log, began: time.Now().UTC(), lock: &lock{Interface: &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Namespace: namespace, Name: LeaseName}, Client: leases,
		LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
	}}}
	promauto.With(log.Metrics).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mayfly_controller_audit_lease_held",
		Help: "Whether this replica records the certificates that cert-manager writes: it holds the Lease.",
	}, func() float64 {
		if h.Holds() {
			return 1
		}
		return 0
	})
	return h
}

// Holds reports whether this replica holds the Lease.
func (h *Holder) Holds() bool {
	if h == nil {
		return false
	}
	term := h.term.Load()
	return term != nil && (*term).Err() == nil
}

// First reports whether this replica decides on requests first: it holds the Lease, or knows nobody who does. A nil
// Holder's does.
func (h *Holder) First() bool { return h == nil || h.Holds() || !h.lock.heldByAnother() }

// Start competes for the Lease until ctx ends, and gives it back. It implements [manager.Runnable].
func (h *Holder) Start(ctx context.Context) error {
	for ctx.Err() == nil {
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: h.lock, Name: LeaseName, ReleaseOnCancel: true,
			LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
			Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: h.take, OnStoppedLeading: func() {}},
		})
		if err != nil {
			return fmt.Errorf("compete for Lease %s: %w", LeaseName, err)
		}
		elector.Run(ctx)
	}
	return nil
}

// NeedLeaderElection implements [manager.LeaderElectionRunnable].
func (h *Holder) NeedLeaderElection() bool { return false }

// take begins a term, and records the gap before it.
func (h *Holder) take(term context.Context) {
	if term.Err() != nil {
		return
	}
	h.term.Store(&term)
	from := h.began
	if seen := h.lock.seen.Load(); seen != nil {
		from = seen.renewed.UTC().Add(-leaseDuration) // Who gives it back no longer records what it hears last.
	}
	h.log.Write(Record{
		Audit: Gap, Interval: Interval{From: from, To: time.Now().UTC()},
		Message: "this replica records certificates from now on: those issued in between may not be on record",
	})
}

// A lock is a Lease that remembers how it was last read.
type lock struct {
	resourcelock.Interface
	seen atomic.Pointer[sighting]
}

// A sighting is what was read of the Lease.
type sighting struct {
	holder  string
	renewed time.Time // By the holder's clock.
	since   time.Time // When that was first read.
}

// Get implements [resourcelock.Interface]. A competitor calls it before it takes the Lease, and a holder if a renewal
// fails.
func (l *lock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := l.Interface.Get(ctx)
	if err != nil {
		return record, raw, err
	}
	now := sighting{record.HolderIdentity, record.RenewTime.Time, time.Now()}
	if last := l.seen.Load(); last == nil || last.holder != now.holder || !last.renewed.Equal(now.renewed) {
		l.seen.Store(&now)
	}
	return record, raw, nil
}

// heldByAnother reports whether another replica holds the Lease, as far as this one knows: it has seen it renewed.
func (l *lock) heldByAnother() bool {
	seen := l.seen.Load()
	return seen != nil && seen.holder != "" && seen.holder != l.Identity() && time.Since(seen.since) < leaseDuration
}
