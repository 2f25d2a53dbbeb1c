package main

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/cert-manager/cert-manager/pkg/util/pki"

	"github.com/mayfly-csi/mayfly/test/cluster"
)

// files prints the certificates that the pods of a node see, each after a line of its own.
const files = `for f in /var/lib/kubelet/pods/*/volumes/kubernetes.io~csi/v?/mount/tls.crt; do echo @; cat "$f" 2>/dev/null; done`

// look reads the files of all volumes of a node every ten seconds, until ctx ends, and notes which certificates have ended.
func (l *ledger) look(ctx context.Context, node *cluster.Machine) error {
	ticker := time.NewTicker(10 * time.Second)
	defer ticker.Stop()
	for {
		now := time.Now()
		out, err := node.Command(ctx, "sh", "-c", files).Output()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read the files on %s: %w", node.Name, err)
		}
		l.note(now, time.Now(), bytes.Split(out, []byte("@\n")))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// note notes what the files had between two times. A file that is replaced while it is read is read the next time.
func (l *ledger) note(begin, end time.Time, files [][]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rounds++
	for _, text := range files {
		leaf, err := pki.DecodeX509CertificateBytes(text)
		if err != nil || len(leaf.DNSNames) != 1 {
			continue
		}
		h := l.history(leaf.DNSNames[0])
		h.looks++
		if leaf.NotAfter.Before(begin) {
			h.expired++
		}
		for i := range h.certificates {
			if c := &h.certificates[i]; c.serial == leaf.SerialNumber.String() && c.seen.IsZero() {
				c.seen = end
			}
		}
	}
}
