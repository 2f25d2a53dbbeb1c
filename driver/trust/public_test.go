package trust_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/crypto/x509roots/fallback/bundle"

	"github.com/mayfly-csi/mayfly/driver/trust"
	"github.com/mayfly-csi/mayfly/driver/volume"
)

// TestPublic: a volume gets Mozilla's list, but for what it trusts within limits.
func TestPublic(t *testing.T) {
	var log bytes.Buffer
	w, err := trust.New(trust.Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	source, read := volume.Source{Kind: volume.PublicSource}, make(chan struct{}, 1)
	stop := w.Follow(source, func() { read <- struct{}{} })
	<-read
	a := w.Answer(source)
	stop()
	if a.Err != nil || a.Certificates.Size() > trust.MaxSize/2 || len(a.Certificates.Unparsed()) > 0 {
		t.Errorf("%d bytes, %q, %v", a.Certificates.Size(), a.Certificates.Unparsed(), a.Err)
	}
	var all, limited int
	for root := range bundle.Roots() {
		has := false
		for _, c := range a.Certificates {
			has = has || bytes.Equal(c.Raw(), root.Certificate)
		}
		if has == (root.Constraint != nil) {
			t.Errorf("root %d: among the volume's %v, with limits %v", all, has, !has)
		}
		if root.Constraint != nil {
			limited++
		}
		all++
	}
	if limited == 0 || len(a.Certificates) != all-limited {
		t.Errorf("%d of %d, %d of which have limits", len(a.Certificates), all, limited)
	}
	if text := log.String(); !strings.Contains(text, "public CA certificates of golang.org/x/crypto/x509roots") || !strings.Contains(text, " date=") {
		t.Errorf("log: %s", text)
	}
}
