// Package store holds the volumes of this node: for each its directory, a tmpfs with the record and the generations of
// its files, its mounts, and what is in force. [Store.Recover] finds them again after a restart. The store owns a
// volume's turn: operations on a volume take turns, one at a time.
package store

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/mayfly-csi/mayfly/driver/files"
)

// A Store holds the volumes of one state directory, by their ids. Make one with [New].
type Store struct {
	dir       string
	now       func() time.Time
	log       *slog.Logger
	swappable prometheus.Counter

	mu      sync.Mutex
	volumes map[string]*Volume
}

// New makes a store, and its state directory if that does not exist. The store is empty until [Store.Recover]. now
// is the wall clock. It panics if the registry has its metrics already; a nil one gets none.
func New(dir string, now func() time.Time, log *slog.Logger, registry prometheus.Registerer) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	s := &Store{dir: dir, now: now, log: log, volumes: map[string]*Volume{}}
	s.addMetrics(promauto.With(registry))
	return s, nil
}

// addMetrics makes the store's metrics. None is per volume, so that their number does not grow with the node's pods.
func (s *Store) addMetrics(metrics promauto.Factory) {
	metrics.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mayfly_volumes",
		Help: "Volumes that this node holds."},
		func() float64 { return float64(len(s.All())) })
	metrics.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mayfly_first_expiry_timestamp_seconds",
		Help: "When the first certificate of this node ends or ended, as Unix time; 0 without any."},
		func() float64 { return float64(max(0, s.firstEnd().Unix())) })
	metrics.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mayfly_certificates_expired",
		Help: "Volumes whose certificate has ended."},
		func() float64 { return s.count((*Volume).expiredAt) })
	metrics.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mayfly_renewals_overdue",
		Help: "Volumes whose renewal was due a tenth of their certificate's lifetime ago, " +
			"or an hour ago if that is less, and has not succeeded, and those whose certificate begins only later, " +
			"for the clock was set back."},
		func() float64 { return s.count((*Volume).overdueAt) })
	s.swappable = metrics.NewCounter(prometheus.CounterOpts{
		Name: "mayfly_tmpfs_swappable_total",
		Help: "Volumes whose memory the kernel may swap to disk: it does not know tmpfs's noswap (Linux 6.4)."})
}

// Find returns the volume; nil if there is none.
func (s *Store) Find(id string) *Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.volumes[id]
}

// Get returns the volume, a new one if there is none. A new one has no directory yet.
func (s *Store) Get(id string) *Volume { return s.get(s.dir, id) }

// get returns the volume, a new one in the state directory if there is none.
func (s *Store) get(dir, id string) *Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.volumes[id]
	if !ok {
		v = newVolume(id, files.Dir(filepath.Join(dir, id)), s.now)
		s.volumes[id] = v
	}
	return v
}

// All returns the volumes, in no order.
func (s *Store) All() []*Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.volumes))
}

// count returns for how many volumes is is true now.
func (s *Store) count(is func(v *Volume, now time.Time) bool) (n float64) {
	now := s.now()
	for _, v := range s.All() {
		if is(v, now) {
			n++
		}
	}
	return n
}

// firstEnd returns when the first certificate of all volumes ends; zero if there is none.
func (s *Store) firstEnd() (first time.Time) {
	for _, v := range s.All() {
		if p, ok := v.Pair(); ok && (first.IsZero() || p.NotAfter.Before(first)) {
			first = p.NotAfter
		}
	}
	return first
}

// Forget forgets a volume that is removed.
func (s *Store) Forget(v *Volume) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.volumes, v.id)
}

// maxID is the greatest size of an id in bytes.
const maxID = 128

// fileName matches valid ids. The kubelet's are csi- and 64 hex digits.
var fileName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$`)

// CheckID returns an error for an id that is no plain file name: it names the volume's directory.
func CheckID(id string) error {
	if !fileName.MatchString(id) {
		return fmt.Errorf("volume_id %.32q is not a plain file name of at most %d bytes", id, maxID)
	}
	return nil
}
