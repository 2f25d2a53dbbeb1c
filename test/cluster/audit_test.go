package cluster_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/signer/controller/audit"
)

// auditRecord follows a certificate from the pod's file to its record and its decision, and a denial to its reason.
// cert-manager signs, and its webhook writes down who asks.
func auditRecord(t *testing.T) {
	p := newPlatform(t)
	p.profile("profiles: {web: {dns-names: '${POD_NAME}.${POD_NAMESPACE}.svc', spiffe: 'true', duration: 1h}}")
	p.control("ca", "one.test")
	until(t, "the controller holds the Lease", func() bool { return strings.Contains(p.log.String(), `"audit":"gap"`) })
	h := p.host("a")
	h.restart("ca", "one.test")
	h.publish(h.volume)
	leaf := h.leaf(h.Target(h.volume))

	certificate := p.recorded("the certificate's record", func(r audit.Record) bool {
		return r.Audit == audit.Certificate && r.Serial == fmt.Sprintf("%X", leaf.SerialNumber.Bytes())
	})
	hash := fmt.Sprintf("%x", sha256.Sum256(leaf.RawSubjectPublicKeyInfo))
	if certificate.Certificate != audit.Issued || certificate.KeySHA256 != hash || !certificate.NotAfter.Equal(leaf.NotAfter) ||
		!slices.Equal(certificate.DNSNames, leaf.DNSNames) || len(leaf.DNSNames) != 1 {
		t.Errorf("%+v", certificate)
	}
	decision := p.recorded("its decision", func(r audit.Record) bool {
		return r.Audit == audit.Decision && r.Request.UID == certificate.Request.UID
	})
	if decision.Decision != audit.Approved || decision.KeySHA256 != hash || !slices.Equal(decision.DNSNames, leaf.DNSNames) {
		t.Errorf("%+v", decision)
	}
	pod := h.volume.Pod
	for _, r := range []audit.Record{decision, certificate} {
		if r.Namespace != pod.Namespace || r.Name != pod.Name || string(r.UID) != pod.UID || r.Node != h.name ||
			r.ServiceAccount != pod.ServiceAccount || r.Issuer == nil || r.Issuer.Name != "ca" || r.Mode != audit.Driver {
			t.Errorf("%+v", r)
		}
	}

	p.control("other", "one.test")
	h.denied("ca", "other")
	denial := p.recorded("the denial", func(r audit.Record) bool { return r.Decision == audit.Denied && r.Name == pod.Name })
	if denial.Reason != "NotTheVolumes" || denial.Node != h.name || denial.ServiceAccount != pod.ServiceAccount {
		t.Errorf("%+v", denial)
	}
	h.unpublish(h.volume)
}

// recorded waits for a record of the controller's.
func (p *platform) recorded(what string, is func(audit.Record) bool) (found audit.Record) {
	p.Helper()
	until(p.T, what, func() bool {
		for line := range strings.Lines(p.log.String()) {
			var r audit.Record
			if json.Unmarshal([]byte(line), &r) == nil && r.Audit != "" && is(r) {
				found = r
				return true
			}
		}
		return false
	})
	return found
}
