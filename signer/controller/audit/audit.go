// Package audit writes the audit record: one JSON object on one line for each decision and for each certificate.
//
// Controllers call [Log.Write] once the API server has stored what they decided; it encodes the record, appends it to
// a queue of bounded length and size, and never waits. One goroutine, which [Open] starts and [Log.Close] ends, writes
// the queue to standard output or to a file that rotates. A record that finds the queue full or can't be written is
// lost: it is counted, and once a minute logged and an Event of the controller's pod; decisions go on. Every replica
// sees the certificates that cert-manager writes, and the one that holds the Lease records them: [Holder.Start]
// competes for it in a goroutine of the manager's, and whoever gets it first records the gap since it was last renewed.
// By [Holder.First] it decides before the others do, too: most of what it records it has decided itself.
// At shutdown the manager stops the controllers and the Holder, which gives the Lease back; then Close waits until the
// queue is written.
package audit

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"gopkg.in/natefinch/lumberjack.v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/mayfly-csi/mayfly/signer/message"
)

// Config is what a Log is made of.
type Config struct {
	Path       string    // Of the file; "-": Stdout.
	MaxSize    int       // Megabytes of a file before it rotates.
	MaxBackups int       // Rotated files that are kept; 0: all.
	Stdout     io.Writer // For "-".

	Events  Events      // Of Pod.
	Pod     *corev1.Pod // The controller's own; nil: it is not known, and gets no Events.
	Metrics prometheus.Registerer
	Log     *slog.Logger
}

// Events write Events, for `kubectl describe`. client-go's recorder does.
type Events interface {
	Eventf(regarding, related runtime.Object, kind, reason, action, note string, args ...any)
}

const (
	maxQueued      = 4096    // Records that wait to be written.
	maxQueuedBytes = 8 << 20 // Their bytes.
	reportEvery    = time.Minute
	closeTimeout   = 5 * time.Second
)

// A Log writes records. A nil Log writes none. Make one with [Open].
type Log struct {
	Config
	out     io.Writer
	records *prometheus.CounterVec
	lost    *prometheus.CounterVec
	queue   chan entry
	done    chan struct{} // It is closed when the queue is written.
	torn    bool          // The last line is a part of one. The writing goroutine's own.

	mu       sync.Mutex
	bytes    int // Of the queue.
	closed   bool
	reported time.Time // When the last report of lost records was made.
}

// An entry is a record that waits to be written.
type entry struct {
	kind string
	line []byte
}

// Open starts a Log. [Log.Close] must be called. It panics if the registry has its metrics already.
func Open(config Config) *Log {
	factory := promauto.With(config.Metrics)
	l := &Log{
		Config: config, out: config.Stdout, queue: make(chan entry, maxQueued), done: make(chan struct{}),
		records: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "mayfly_controller_audit_records_total", Help: "Audit records that were written, by their kind.",
		}, []string{"audit"}),
		lost: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "mayfly_controller_audit_records_lost_total",
			Help: "Audit records that were lost, by the cause: they could not be written, the queue was full, or the " +
				"controller had stopped.",
		}, []string{"cause"}),
	}
	if config.Path != "-" {
		l.out = &lumberjack.Logger{Filename: config.Path, MaxSize: config.MaxSize, MaxBackups: config.MaxBackups}
		l.torn = endsTorn(config.Path)
	}
	for _, kind := range []string{Decision, Certificate, Unknown, Gap, Limit} {
		l.records.WithLabelValues(kind)
	}
	for _, cause := range []string{"write", "queue", "stopped"} {
		l.lost.WithLabelValues(cause)
	}
	go l.run()
	return l
}

// endsTorn reports whether the last line of a file has no end: an earlier process found the disk full.
func endsTorn(path string) bool {
	file, err := os.Open(path) // #nosec G304 -- The operator names it.
	if err != nil {
		return false
	}
	defer file.Close() //nolint:errcheck // It is only read.
	last := make([]byte, 1)
	if _, err := file.Seek(-1, io.SeekEnd); err != nil { // It is empty.
		return false
	}
	_, err = file.Read(last)
	return err == nil && last[0] != '\n'
}

// Write queues the record, with the time of now. It does not wait.
func (l *Log) Write(r Record) {
	if l == nil {
		return
	}
	r.Time = time.Now().UTC()
	kind := r.Audit
	if r.Certificate == Unknown {
		kind = Unknown
	}
	line, err := json.Marshal(r)
	if err == nil {
		err = l.enqueue(entry{kind, append(line, '\n')})
	}
	if err != nil {
		l.lose(err)
	}
}

// Why a record can't be queued.
var (
	errFull    = errors.New("records come faster than they are written")
	errStopped = errors.New("the controller has stopped")
)

// enqueue queues an entry.
func (l *Log) enqueue(e entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errStopped
	}
	if len(l.queue) == cap(l.queue) || l.bytes+len(e.line) > maxQueuedBytes {
		return errFull
	}
	l.bytes += len(e.line)
	l.queue <- e // There is room: nobody else sends without the lock.
	return nil
}

// Close writes what is queued. If that takes too long, it is lost. Another call waits for the same.
func (l *Log) Close() {
	if l == nil {
		return
	}
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.queue)
	}
	l.mu.Unlock()
	select {
	case <-l.done:
	case <-time.After(closeTimeout):
		l.Log.Error("audit records are not written", "records", len(l.queue))
	}
}

// run writes the queue until it is closed.
func (l *Log) run() {
	defer close(l.done)
	for e := range l.queue {
		if err := l.write(e.line); err != nil {
			l.lose(err)
		} else {
			l.records.WithLabelValues(e.kind).Inc()
		}
		l.mu.Lock()
		l.bytes -= len(e.line)
		l.mu.Unlock()
	}
	if file, ok := l.out.(*lumberjack.Logger); ok {
		_ = file.Close()
	}
}

// write writes a line. What a full disk took of another stays one of its own.
func (l *Log) write(line []byte) error {
	if l.torn {
		line = append([]byte{'\n'}, line...)
	}
	n, err := l.out.Write(line)
	l.torn = err != nil && (l.torn || n > 0)
	return err
}

// lose counts a record that is lost, and reports it, once in a while.
func (l *Log) lose(err error) {
	cause := "write"
	switch {
	case errors.Is(err, errFull):
		cause = "queue"
	case errors.Is(err, errStopped):
		cause = "stopped"
	}
	l.lost.WithLabelValues(cause).Inc()
	l.mu.Lock()
	due := time.Since(l.reported) >= reportEvery
	if due {
		l.reported = time.Now()
	}
	l.mu.Unlock()
	if !due {
		return
	}
	l.Log.Error("audit records are lost", "cause", cause, "error", err)
	if l.Pod != nil {
		text := message.Cut("audit records are lost: "+err.Error(), message.Longest)
		l.Events.Eventf(l.Pod, nil, corev1.EventTypeWarning, "AuditRecordsLost", "WriteAuditRecord", "%s", text)
	}
}
