package main

import (
	"sync"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/cert-manager/cert-manager/pkg/util/pki"
	corev1 "k8s.io/api/core/v1"
)

// A ledger has all requests, certificates and Events of the run.
type ledger struct {
	mu       sync.Mutex
	requests map[string]*request // By name.
	volumes  map[string]*history // By the DNS name of the volume's certificates.
	events   map[eventID]corev1.Event
	starts   []time.Duration // Of new pods.
	rounds   int             // How many times the files of a node were looked at.
	ended    time.Time
}

// A request is a CertificateRequest.
type request struct {
	volume  string
	created time.Time // In whole seconds.
	signed  time.Time // When that was seen; zero: it was not.
}

// A history is what a volume has seen.
type history struct {
	certificates []certificate // In the order in which they were signed.
	looks        int           // How many times its file was read.
	expired      int           // How many times that had ended.
}

// A certificate was signed, and was in the pod's file, as the program saw it, and has an end.
type certificate struct {
	serial      string
	signed, end time.Time
	seen        time.Time // In the file; zero: it was not.
}

// An eventID tells apart what an Event said each time that it was counted.
type eventID struct {
	uid   string
	count int32
}

func newLedger() *ledger {
	return &ledger{requests: map[string]*request{}, volumes: map[string]*history{}, events: map[eventID]corev1.Event{}}
}

// request notes a request as it is now, and says whether it is the first time.
func (l *ledger) request(cr *cmapi.CertificateRequest) (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.requests[cr.Name]
	if r == nil {
		csr, err := pki.DecodeX509CertificateRequestBytes(cr.Spec.Request)
		if err != nil || len(csr.DNSNames) != 1 {
			return false
		}
		r, first = &request{volume: csr.DNSNames[0], created: cr.CreationTimestamp.Time}, true
		l.requests[cr.Name] = r
	}
	if len(cr.Status.Certificate) == 0 || !r.signed.IsZero() {
		return first
	}
	if leaf, err := pki.DecodeX509CertificateBytes(cr.Status.Certificate); err == nil {
		r.signed = time.Now()
		h := l.history(r.volume)
		h.certificates = append(h.certificates, certificate{serial: leaf.SerialNumber.String(), signed: r.signed, end: leaf.NotAfter})
	}
	return first
}

// history is that of a volume. l.mu must be held.
func (l *ledger) history(volume string) *history {
	h := l.volumes[volume]
	if h == nil {
		h = &history{}
		l.volumes[volume] = h
	}
	return h
}

// event notes an Event that a pod's author reads.
func (l *ledger) event(o any) {
	e, ok := o.(*corev1.Event)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events[eventID{string(e.UID), e.Count}] = *e
}

func (l *ledger) newcomer(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.starts = append(l.starts, took)
}

// until is the time at which a certificate of the history is replaced, as far as that was seen; zero: it was not.
func (h *history) until(i int) time.Time {
	if i+1 < len(h.certificates) {
		return h.certificates[i+1].signed
	}
	return time.Time{}
}

// replaced is when the pod was first seen with the certificate that follows; zero: it was not.
func (h *history) replaced(i int) time.Time {
	if i+1 < len(h.certificates) {
		return h.certificates[i+1].seen
	}
	return time.Time{}
}

// find says whether a volume had a certificate that ends at a time and fits, by its place in the history.
func (l *ledger) find(volume string, end time.Time, fits func(h *history, i int) bool) bool {
	h := l.volumes[volume]
	if h == nil {
		return false
	}
	for i, c := range h.certificates {
		if c.end.Equal(end) && fits(h, i) {
			return true
		}
	}
	return false
}
