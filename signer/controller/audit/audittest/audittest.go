// Package audittest keeps audit records for tests of those who write them.
package audittest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mayfly-csi/mayfly/signer/controller/audit"
)

// A Holder says whether a replica may record certificates, and decides first.
type Holder bool

// Holds implements the interface of who asks.
func (h Holder) Holds() bool { return bool(h) }

// First implements the interface of who asks.
func (h Holder) First() bool { return bool(h) }

// A Kept is an audit record in memory, until its test ends.
type Kept struct {
	*audit.Log
	text bytes.Buffer
}

// Open begins a record.
func Open(t *testing.T) *Kept {
	k := &Kept{}
	k.Log = audit.Open(audit.Config{
		Path: "-", Stdout: &k.text, Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(k.Close)
	return k
}

// Read ends the record and returns what it has, also in words: "decision approved VerifiedByMayfly".
func (k *Kept) Read(t *testing.T) (all []audit.Record, words []string) {
	t.Helper()
	k.Close()
	for line := range bytes.Lines(k.text.Bytes()) {
		var r audit.Record
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, r)
		line := fmt.Sprint(r.Audit, " ", r.Certificate, " ", r.Decision, " ", r.Reason)
		words = append(words, strings.Join(strings.Fields(line), " "))
	}
	return all, words
}
