package chaos

import (
	"errors"
	"sync"
	"time"

	"github.com/mayfly-csi/mayfly/driver/trust"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// A corporate is the one source of CA certificates beside the issuers. It implements trust.Sources.
type corporate struct {
	mu      sync.Mutex
	answer  trust.Answer
	since   time.Time // When it changed.
	changed map[int]func()
	next    int
}

// Follow implements trust.Sources.
func (c *corporate) Follow(_ volume.Source, changed func()) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.next
	c.next++
	c.changed[id] = changed
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.changed, id)
	}
}

// Answer implements trust.Sources.
func (c *corporate) Answer(volume.Source) trust.Answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answer
}

// set changes the answer: certificates of CAs, or none.
func (c *corporate) set(cas ...authority) {
	c.mu.Lock()
	c.since = time.Now()
	c.answer = trust.Answer{Err: errors.New("the file is gone")}
	if len(cas) > 0 {
		c.answer = trust.Answer{}
		for _, ca := range cas {
			c.answer.Certificates = append(c.answer.Certificates, chain.Of(ca.certificate))
		}
	}
	var all []func()
	for _, changed := range c.changed {
		all = append(all, changed)
	}
	c.mu.Unlock()
	for _, changed := range all {
		changed()
	}
}

// otherTrust changes the source of CA certificates. One of them may end soon.
func (w *world) otherTrust() bool {
	p := w.api.pki
	ending := p.issue(authority{}, "ending", w.clock.Now().Add(w.span(6*time.Hour)))
	all := [][]authority{{p.root}, {p.intermediate}, {p.stranger}, {}, {p.root, ending}, {ending, p.stranger}}
	w.corporate.set(all[w.rand.IntN(len(all))]...)
	return true
}

// parted returns those certificates that have not ended at t, and those that have. ok is false if one ends about then.
func parted(all chain.Bundle, t time.Time) (valid, ended chain.Bundle, ok bool) {
	for _, c := range all {
		switch left := endOf(c).Sub(t); {
		case left.Abs() < late:
			return nil, nil, false
		case left > 0:
			valid = append(valid, c)
		default:
			ended = append(ended, c)
		}
	}
	return valid, ended, true
}

// endOf returns when a certificate ends.
func endOf(c chain.Certificate) time.Time {
	parsed, err := c.X509()
	if err != nil {
		panic(err)
	}
	return parsed.NotAfter
}
