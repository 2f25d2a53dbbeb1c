package authority

import (
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/signer/ca"
)

const day = 24 * time.Hour

// start is when the first CA of these tests is made.
var start = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// plan is a CA of 100 days, for certificates of 30, published for 2 ahead.
func plan() Plan { return Plan{Lifetime: 100 * day, Leaf: 30 * day, Ahead: 2 * day} }

func take(t *testing.T, step Step, s State, now time.Time) State {
	t.Helper()
	s, err := plan().Take(step, s, now)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// at is so many days after the start.
func at(days float64) time.Time { return start.Add(time.Duration(days * float64(day))) }

func TestNext(t *testing.T) {
	none := State{}
	first := take(t, Begin, none, start)
	prepared := take(t, Prepare, first, at(68))
	second := take(t, Promote, prepared, at(70))
	late := take(t, Prepare, first, at(90))
	tooLate := take(t, Prepare, first, at(99))
	for _, row := range []struct {
		name string
		s    State
		now  time.Time
		due  Step
		at   float64 // In days.
	}{
		{"nothing", none, start, Begin, 0},
		{"one that is new", first, start, Keep, 68},
		{"just before", first, at(68).Add(-time.Second), Keep, 68},
		{"the next one is made", first, at(68), Prepare, 68},
		{"no controller ran for long", first, at(99.99), Prepare, 99.99},
		{"the last one is over", first, at(100), Begin, 100},
		{"the next one is published", prepared, at(68), Keep, 70},
		{"just before it signs", prepared, at(70).Add(-time.Second), Keep, 70},
		{"it signs", prepared, at(70), Promote, 70},
		{"only the next one is left", prepared, at(101), Promote, 101},
		{"both are over", prepared, at(169), Begin, 169},
		{"the old root stays", second, at(70), Keep, 100},
		{"just before its end", second, at(100).Add(-time.Second), Keep, 100},
		{"at its end", second, at(100), Forget, 100},
		{"after it", take(t, Forget, second, at(100)), at(100), Keep, 136},
		{"the next one is late: it is published as long", late, at(90), Keep, 92},
		{"there is no time for that: for as long as the old one can sign", tooLate, at(99), Keep, 100 - 1.0/24},
	} {
		due, when := plan().Next(row.s, row.now)
		if due != row.due || when.Sub(at(row.at)).Abs() > time.Second {
			t.Errorf("%s: %q at %s, want %q at %s", row.name, due, when, row.due, at(row.at))
		}
	}
}

func TestANextOneThatIsOverGoes(t *testing.T) {
	short := Plan{Lifetime: 10 * day, Leaf: day, Ahead: day}
	s := take(t, Begin, State{}, start)
	s, err := short.Take(Prepare, s, at(5)) // The plan was another for a while.
	if err != nil {
		t.Fatal(err)
	}
	if due, _ := plan().Next(s, at(16)); due != Forget {
		t.Errorf("%q", due)
	}
	if s = take(t, Forget, s, at(16)); s.Next != nil || len(s.Roots) != 1 {
		t.Errorf("%v, %d roots", s.Next, len(s.Roots))
	}
}

// A year of rotations holds what relying parties need, whenever they look.
func TestWhoeverFollowsTheBundleTrustsEachCertificate(t *testing.T) {
	var (
		s      State
		signed []*x509.Certificate
		known  = map[string]time.Time{} // Since when a root is published.
	)
	for now := start; now.Before(at(600)); now = now.Add(day) {
		for step, _ := plan().Next(s, now); step != Keep; step, _ = plan().Next(s, now) {
			s = take(t, step, s, now)
		}
		for _, root := range s.Roots {
			if name := root.Subject.CommonName; known[name].IsZero() {
				known[name] = now
			}
		}
		if since := known[s.Signing.Certificate.Subject.CommonName]; now.Sub(since) < plan().Ahead && since != start {
			t.Fatalf("%s: %s signs, and is published since %s", now, s.Signing, since)
		}
		if len(s.Roots) > 3 {
			t.Fatalf("%s: %d roots", now, len(s.Roots))
		}
		signed = slices.DeleteFunc(append(signed, leaf(t, *s.Signing, now)), func(c *x509.Certificate) bool { return !now.Before(c.NotAfter) })
		pool := x509.NewCertPool()
		for _, root := range s.Roots {
			pool.AddCert(root)
		}
		for _, c := range signed {
			if _, err := c.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now}); err != nil {
				t.Fatalf("%s: %s of %s: %v", now, c.NotBefore, c.Issuer, err)
			}
		}
	}
	if len(known) < 8 {
		t.Errorf("%d CAs in 600 days", len(known))
	}
}

// leaf is a certificate that lasts as long as one may.
func leaf(t *testing.T, c ca.CA, now time.Time) *x509.Certificate {
	t.Helper()
	begin, end, err := c.Validity(now, plan().Leaf)
	if err != nil || end.Sub(begin) < plan().Leaf {
		t.Fatalf("%s: from %s to %s (%v)", now, begin, end, err)
	}
	// Any key will do.
	issued, err := c.Sign(&x509.Certificate{PublicKey: c.Certificate.PublicKey, NotBefore: begin, NotAfter: end, DNSNames: []string{"web.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		t.Fatal(err)
	}
	sent, err := ca.Decode(issued.Chain)
	if err != nil {
		t.Fatal(err)
	}
	return sent[0]
}

func TestPlans(t *testing.T) {
	if err := DefaultPlan().Check(); err != nil {
		t.Error(err)
	}
	for want, p := range map[string]Plan{
		"both must be more than nothing": {Lifetime: day},
		"a CA that lasts for 24h0m0s would never sign: it is published for 12h0m0s before, and what it signs may last for 12h0m0s": {Lifetime: day, Leaf: day / 2, Ahead: day / 2},
	} {
		if err := p.Check(); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}
