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

// set changes the answer: a CA's certificate, or none.
func (c *corporate) set(ca authority) {
	c.mu.Lock()
	c.since = time.Now()
	c.answer = trust.Answer{Err: errors.New("the file is gone")}
	if ca.certificate != nil {
		c.answer = trust.Answer{Certificates: chain.BundleOf(ca.certificate)}
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

// otherTrust changes the source of CA certificates.
func (w *world) otherTrust() bool {
	all := []authority{w.api.pki.root, w.api.pki.intermediate, w.api.pki.stranger, {}}
	w.corporate.set(all[w.rand.IntN(len(all))])
	return true
}
