package authority

import (
	"crypto/x509"
	"fmt"
	"slices"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/mayfly-csi/mayfly/signer/ca"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// root is a root that ends 100 days after the start.
func root(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	made, err := ca.New(name, start.Add(-time.Hour), at(100))
	if err != nil {
		t.Fatal(err)
	}
	return made.Certificate
}

// turned is the bundle after now: "a b until 2026-12-24" and whether that changed it.
func turned(t *testing.T, bundle *certificatesv1.ClusterTrustBundle, now time.Time, current ...*x509.Certificate) (names string, changed bool, wakeAt time.Time) {
	t.Helper()
	before, err := readRoll(bundle)
	if err != nil {
		t.Fatal(err)
	}
	after, wakeAt := before.turn(current, now, 30*day)
	if changed, err = after.write(bundle); err != nil {
		t.Fatal(err)
	}
	read, err := readRoll(bundle)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range read.roots {
		names += c.Subject.CommonName
		if until, ok := read.leaving[fingerprint(c)]; ok {
			names += fmt.Sprintf("(%.0f)", until.Sub(start).Hours()/24)
		}
	}
	return names, changed, wakeAt
}

func TestABundleKeepsOldRoots(t *testing.T) {
	a, b, c := root(t, "a"), root(t, "b"), root(t, "c")
	bundle := &certificatesv1.ClusterTrustBundle{}
	for _, row := range []struct {
		name    string
		days    float64
		current []*x509.Certificate
		want    string
		changed bool
		wakeAt  float64 // 0: never.
	}{
		{"the first", 0, []*x509.Certificate{a}, "a", true, 0},
		{"nothing is new", 1, []*x509.Certificate{a}, "a", false, 0},
		{"another comes", 2, []*x509.Certificate{a, b}, "ab", true, 0},
		{"one leaves", 10, []*x509.Certificate{b}, "ba(40)", true, 40},
		{"its time does not move", 20, []*x509.Certificate{b}, "ba(40)", false, 40},
		{"a third for the second", 25, []*x509.Certificate{c}, "cb(55)a(40)", true, 40},
		{"just before the first goes", 39.9, []*x509.Certificate{c}, "cb(55)a(40)", false, 40},
		{"the first goes", 40.1, []*x509.Certificate{c}, "cb(55)", true, 55},
		{"the second is back", 41, []*x509.Certificate{b, c}, "bc", true, 0},
		{"and leaves again: it may have signed", 80, []*x509.Certificate{c}, "cb(100)", true, 100},
		{"it is over", 100, []*x509.Certificate{c}, "c", true, 0},
	} {
		got, changed, wakeAt := turned(t, bundle, at(row.days), row.current...)
		if got != row.want || changed != row.changed || wakeAt.IsZero() != (row.wakeAt == 0) || !wakeAt.IsZero() && wakeAt.Sub(at(row.wakeAt)).Abs() > time.Second {
			t.Errorf("%s: %s, changed %v, %s; want %s, %v, %s", row.name, got, changed, wakeAt, row.want, row.changed, at(row.wakeAt))
		}
	}
}

// What a person writes into a bundle stays for a while, and what a person takes out does not come back.
func TestABundleThatAPersonChanged(t *testing.T) {
	a, b := root(t, "a"), root(t, "b")
	bundle := &certificatesv1.ClusterTrustBundle{}
	bundle.Spec.TrustBundle = string(chain.Encode(a, b))
	bundle.Annotations = map[string]string{leavingKey: "{", "example.org/note": "kept"}
	if got, changed, _ := turned(t, bundle, start, b); got != "ba(30)" || !changed || bundle.Annotations["example.org/note"] != "kept" {
		t.Errorf("%s, %v", got, bundle.Annotations)
	}
	bundle.Annotations[leavingKey] = fmt.Sprintf(`{%q: "9999-12-31T00:00:00Z"}`, fingerprint(a))
	if got, changed, _ := turned(t, bundle, at(1), b); got != "ba(31)" || !changed {
		t.Errorf("%s, %v", got, bundle.Annotations)
	}
	bundle.Spec.TrustBundle = string(chain.Encode(b))
	if got, _, wakeAt := turned(t, bundle, at(1), b); got != "b" || !wakeAt.IsZero() || !slices.Equal([]string{bundle.Annotations[leavingKey]}, []string{""}) {
		t.Errorf("%s, %v", got, bundle.Annotations)
	}
	bundle.Spec.TrustBundle = "x"
	if _, err := readRoll(bundle); err == nil {
		t.Error("garbage is read")
	}
}
