package trust_test

import (
	"crypto/x509"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/trust"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// The sources of the tests.
var (
	issuer = volume.Source{Kind: volume.IssuerSource}
	corp   = volume.Source{Kind: volume.FileSource, Name: "corp"}
	mesh   = volume.Source{Kind: volume.ConfigMapSource, Namespace: "shop", Name: "mesh", Key: "ca.crt"}
)

// A story is of a volume to which events happen.
type story struct {
	trust.Memory
	sources []volume.Source
	chain   chain.Bundle
	now     time.Time
}

// An event is that a source says something, or a certificate is issued.
type event func(s *story)

// tell has all happen to a new volume. After each event the driver is started again.
func tell(t *testing.T, sources []volume.Source, events ...event) *story {
	t.Helper()
	s := &story{sources: sources, now: time.Now()}
	s.goOn(t, events...)
	return s
}

func (s *story) goOn(t *testing.T, events ...event) {
	t.Helper()
	for _, happens := range events {
		happens(s)
		s.Memory = again(t, s.Memory)
	}
}

func (s *story) roots() chain.Bundle { return s.Roots(s.sources, s.now) }

// says is that a source has certificates now, or none and a reason.
func says(s volume.Source, trouble string, cas ...*ca) event {
	answer := trust.Answer{Certificates: list(cas...)}
	if trouble != "" {
		answer = trust.Answer{Err: errors.New(trouble)}
	}
	return func(story *story) {
		story.Memory = story.Update(story.sources, func(of volume.Source) trust.Answer {
			if of == s {
				return answer
			}
			return trust.Answer{}
		}, story.chain, story.now)
	}
}

// issued is that the issuer tells its CA with a certificate.
func issued(told *ca, leafFirst ...*x509.Certificate) event {
	var cas chain.Bundle
	if told != nil {
		cas = list(told)
	}
	return func(s *story) {
		s.chain = chain.BundleOf(leafFirst...)
		s.Memory = s.Issued(s.sources, cas, s.chain, s.now, chain.NewChecks(trust.MaxChecks))
	}
}

func TestRoots(t *testing.T) {
	a, b, c := newCA(t, "a", nil), newCA(t, "b", nil), newCA(t, "c", nil)
	between := newCA(t, "between", a)
	hour := a.leaf(t, time.Hour)
	of := func(s ...volume.Source) []volume.Source { return s }
	rows := []struct {
		name    string
		sources []volume.Source
		events  []event
		after   time.Duration
		want    chain.Bundle
		nextEnd bool
	}{
		{"the issuer's", of(issuer), []event{issued(a, hour)}, 0, list(a), false},
		{"the issuer tells none", of(issuer), []event{issued(nil, hour)}, 0, nil, false},
		{"the issuer tells none any more", of(issuer), []event{issued(a, hour), issued(nil, a.leaf(t, time.Hour))}, 0, list(a), false},
		{"of several sources in their order, each once", of(corp, issuer, mesh), []event{says(corp, "", b, c), says(mesh, "", c, a), issued(a, hour)}, 0, list(b, c, a), false},
		{"not the issuer's where it is no source", of(corp), []event{says(corp, "", b), issued(a, hour)}, 0, list(b), false},
		{"the issuer's CA is replaced", of(issuer), []event{issued(a, hour), issued(b, b.leaf(t, 2*time.Hour))}, 0, list(b, a), true},
		{"and the last certificate under the old one has ended", of(issuer), []event{issued(a, hour), issued(b, b.leaf(t, 2*time.Hour))}, 61 * time.Minute, list(b), false},
		{"a bundle loses the root of the pod's certificate", of(corp), []event{says(corp, "", a, b), issued(nil, hour), says(corp, "", b)}, 0, list(b, a), true},
		{"a bundle loses another root", of(corp), []event{says(corp, "", a, b), issued(nil, hour), says(corp, "", a)}, 0, list(a), false},
		{"a bundle loses the root of an earlier certificate", of(corp), []event{
			says(corp, "", a, b), issued(nil, hour), issued(nil, b.leaf(t, 2*time.Hour)), says(corp, "", b)}, 0, list(b, a), true},
		{"until it ends", of(corp), []event{
			says(corp, "", a, b), issued(nil, hour), issued(nil, b.leaf(t, 2*time.Hour)), says(corp, "", b)}, 61 * time.Minute, list(b), false},
		{"a root that came after the certificate, and goes", of(corp), []event{
			says(corp, "", b), issued(nil, hour), says(corp, "", a, b), says(corp, "", b)}, 0, list(b, a), true},
		{"a root that comes back is none that stays", of(corp), []event{
			says(corp, "", a, b), issued(nil, hour), says(corp, "", b), says(corp, "", b, a)}, 0, list(b, a), false},
		{"through a chain", of(corp), []event{
			says(corp, "", a, c), issued(nil, between.leaf(t, time.Hour), between.Certificate), says(corp, "", c)}, 0, list(c, a), true},
		{"a source vanishes", of(corp, mesh), []event{says(corp, "", a), says(mesh, "", b), says(corp, "not found")}, 0, list(a, b), false},
		{"a source was never there", of(corp, mesh), []event{says(corp, "", a), says(mesh, "not found")}, 0, list(a), false},
		{"a source comes back", of(corp), []event{says(corp, "", a), says(corp, "not found"), says(corp, "", b)}, 0, list(b), false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s := tell(t, row.sources, row.events...)
			s.now = s.now.Add(row.after)
			equal(t, "roots", s.roots(), row.want)
			end, want := s.NextEnd(row.sources, s.now), time.Time{}
			switch {
			case row.nextEnd: // All of these certificates have an hour.
				want = hour.NotAfter
			case len(row.want) > 0: // All of these CAs have a day.
				want = a.NotAfter
			}
			if end.Sub(want).Abs() > 2*time.Second {
				t.Errorf("the next end is at %s, want %s", end, want)
			}
		})
	}
	s := tell(t, of(corp), says(corp, "", a, between, c), issued(nil, between.leaf(t, time.Hour)), says(corp, "", c))
	if got := s.roots(); len(got) != 3 || !got[0].Equal(chain.Of(c.Certificate)) {
		t.Errorf("not all above the certificate stay: %v", names(got))
	}
}

// TestExpiredRoots: they are left out, and come back if the clock that said so was wrong.
func TestExpiredRoots(t *testing.T) {
	ending := func(name string, after time.Duration) *ca { return sign(t, template(name, after), nil) }
	soon, later, last := ending("soon", time.Hour), ending("later", 2*time.Hour), ending("last", 3*time.Hour)
	at := func(c *ca) time.Time { return c.NotAfter }
	s := tell(t, []volume.Source{corp, mesh}, says(corp, "", later, soon), says(mesh, "", last, soon))
	begin := s.now
	for _, row := range []struct {
		now  time.Time
		want chain.Bundle
		next time.Time
	}{
		{begin, list(later, soon, last), at(soon)},
		{at(soon).Add(-time.Second), list(later, soon, last), at(soon)},
		{at(soon), list(later, last), at(later)},
		{at(later), list(last), at(last)},
		{at(last), list(later, soon, last), time.Time{}}, // An empty file is no better.
		{begin, list(later, soon, last), at(soon)},
	} {
		equal(t, row.now.String(), s.Roots(s.sources, row.now), row.want)
		if next := s.NextEnd(s.sources, row.now); !next.Equal(row.next) {
			t.Errorf("at %s the next end is at %s, want %s", row.now, next, row.next)
		}
	}
	// Those that have expired are none that a pod still has beside distrusted ones.
	m := s.Distrust(volume.Fingerprints{volume.FingerprintOf(last.Raw)})
	equal(t, "distrusted", m.Roots(s.sources, at(later)), nil)
	if !m.AllDistrusted(s.sources, at(later)) || m.AllDistrusted(s.sources, begin) {
		t.Error("what is distrusted is that which has not expired")
	}
}

// again is the memory after a restart.
func again(t *testing.T, m trust.Memory) trust.Memory {
	t.Helper()
	text, err := m.Encode(nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if m, err = trust.Decode(text); err != nil {
		t.Fatal(err)
	}
	return m
}

// A driver that was told other sources for a volume goes on with what the volume had, until it knows those.
func TestOtherSources(t *testing.T) {
	a, b := newCA(t, "a", nil), newCA(t, "b", nil)
	s := tell(t, []volume.Source{issuer}, issued(a, b.leaf(t, time.Hour)))
	s.sources = []volume.Source{corp}
	s.goOn(t, says(corp, "not found"))
	equal(t, "not known yet", s.roots(), list(a))
	if s.Complete(s.sources) {
		t.Error("complete")
	}
	s.goOn(t, says(corp, "", b))
	equal(t, "known", s.roots(), list(b))
}

// Of a volume of an older driver, or one that was left between two files, only that is known which its pod has.
func TestWhatAPodHas(t *testing.T) {
	a, b, c := newCA(t, "a", nil), newCA(t, "b", nil), newCA(t, "c", nil)
	leaf := b.leaf(t, time.Hour)
	found := func(sources ...volume.Source) *story {
		s := &story{sources: sources, now: time.Now(), chain: chain.BundleOf(leaf)}
		s.Memory = again(t, trust.FromFiles(sources, list(a, b), s.chain, s.now))
		return s
	}
	s := found(issuer)
	if !s.Complete(s.sources) || !s.IsInstalled(s.roots(), nil) {
		t.Errorf("what the pod has changes: %v", names(s.roots()))
	}
	s.goOn(t, issued(c, c.leaf(t, time.Hour)))
	equal(t, "the issuer has issued", s.roots(), list(c, b))

	s = found(corp)
	if s.Complete(s.sources) {
		t.Error("complete")
	}
	s.goOn(t, issued(c, leaf)) // Its CA was never asked for.
	equal(t, "the source has said nothing yet", s.roots(), list(a, b))
	s.goOn(t, says(corp, "", c))
	equal(t, "the source has said what it has", s.roots(), list(c, b))

	s = found(corp, issuer)
	s.goOn(t, issued(c, leaf))
	equal(t, "the issuer alone has said what it has", s.roots(), list(c, a, b))
	s.goOn(t, says(corp, "", a))
	equal(t, "both have", s.roots(), list(a, c, b))
}

func TestWhatIsLacking(t *testing.T) {
	a := newCA(t, "a", nil)
	s := tell(t, []volume.Source{issuer, corp, mesh})
	if source, trouble, ok := s.Missing(s.sources); !ok || source != corp || trouble != "it has not been read yet" {
		t.Errorf("%v: %s", source, trouble)
	}
	s.goOn(t, says(corp, "", a), says(mesh, "ConfigMap shop/mesh not found"))
	if source, trouble, ok := s.Missing(s.sources); !ok || source != mesh || trouble != "ConfigMap shop/mesh not found" {
		t.Errorf("%v: %s", source, trouble)
	}
	s.goOn(t, says(mesh, "", a))
	if source, _, ok := s.Missing(s.sources); ok || s.Complete(s.sources) { // The issuer speaks when it issues.
		t.Errorf("lacking: %v", source)
	}
}

func TestTrouble(t *testing.T) {
	a := newCA(t, "a", nil)
	s := tell(t, []volume.Source{corp}, says(corp, "away"))
	if got := s.Problems(); !maps.Equal(got, map[string]string{"file:corp": "away; the pod goes on without CA certificates from file:corp"}) {
		t.Errorf("%v", got)
	}
	s.goOn(t, says(corp, "", a), says(corp, "away"))
	if got := s.Problems(); !maps.Equal(got, map[string]string{"file:corp": "away; the pod keeps the CA certificates that it has from file:corp"}) {
		t.Errorf("%v", got)
	}
	s.goOn(t, says(corp, "", a))
	if got := s.Problems(); len(got) != 0 {
		t.Errorf("after it: %v", got)
	}
}

// padded is a CA of some size.
func padded(name string, size int) *x509.Certificate {
	c := template(name, 24*time.Hour)
	c.IsCA, c.BasicConstraintsValid, c.OCSPServer = true, true, []string{strings.Repeat("x", size)}
	return c
}

// Each source may be of some size, and all together of no more.
func TestTooMuchTogether(t *testing.T) {
	b := newCA(t, "b", nil)
	s := tell(t, []volume.Source{corp, mesh}, says(corp, "", sign(t, padded("big", trust.MaxSize/2), nil)), says(mesh, "", b))
	before := s.roots()
	s.goOn(t, says(mesh, "", sign(t, padded("big", trust.MaxSize/2), nil)))
	equal(t, "roots", s.roots(), before)
	if trouble := s.Problems()["config-map:mesh/ca.crt"]; !strings.HasPrefix(trouble, "all sources together have ") {
		t.Errorf("trouble: %q", trouble)
	}
}

// A source may need the room that one which is looked at later gives up.
func TestRoomIsMade(t *testing.T) {
	small := newCA(t, "small", nil)
	big, other := sign(t, padded("big", trust.MaxSize/2), nil), sign(t, padded("other", trust.MaxSize/2), nil)
	s := tell(t, []volume.Source{corp, mesh}, says(corp, "", small), says(mesh, "", big))
	s.Memory = s.Update(s.sources, func(of volume.Source) trust.Answer {
		if of == corp {
			return trust.Answer{Certificates: list(other)}
		}
		return trust.Answer{Certificates: list(small)}
	}, nil, s.now)
	equal(t, "roots", s.roots(), list(other, small))
	if got := s.Problems(); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// An issuer that moves to where it tells no CA does not keep its old one for ever.
func TestAnIssuerThatTellsItsCANoMore(t *testing.T) {
	a, b := newCA(t, "a", nil), newCA(t, "b", nil)
	s := tell(t, []volume.Source{issuer}, issued(a, a.leaf(t, time.Hour)), issued(nil, a.leaf(t, 2*time.Hour)))
	equal(t, "while it is above", s.roots(), list(a))
	s.goOn(t, issued(nil, b.leaf(t, 4*time.Hour)))
	equal(t, "while a certificate is under it", s.roots(), list(a))
	s.now = s.now.Add(3 * time.Hour)
	equal(t, "after that", s.roots(), nil)
}

// Whoever writes a source can make any number of roots above a certificate. Not all of them stay.
func TestOldRootsAreBounded(t *testing.T) {
	a, other := newCA(t, "a", nil), newCA(t, "other", nil)
	s := tell(t, []volume.Source{corp}, says(corp, "", a), issued(nil, a.leaf(t, time.Hour)))
	for range 8 {
		der, err := x509.CreateCertificate(nil, padded("a", trust.MaxSize/16), other.Certificate, a.key.Public(), other.key)
		if err != nil {
			t.Fatal(err)
		}
		cross, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		s.goOn(t, says(corp, "", &ca{Certificate: cross}))
	}
	if text, err := s.Encode(s.sources, time.Now()); err != nil || len(text) > trust.MaxSize/2 || len(s.roots()) < 3 {
		t.Errorf("%d bytes of %d roots are kept (%v)", len(text), len(s.roots()), err)
	}
}

func TestShown(t *testing.T) {
	a, b := newCA(t, "a", nil), newCA(t, "b", nil)
	m := again(t, trust.Memory{}.SetInstalled(list(a), nil))
	if !m.IsInstalled(list(a), nil) || m.IsInstalled(list(b), nil) || m.IsInstalled(list(a, b), nil) || m.IsInstalled(nil, nil) ||
		m.IsInstalled(list(a), []byte("# a")) || (trust.Memory{}).IsInstalled(nil, nil) {
		t.Error("what the pod has is not what it has")
	}
}

func TestARecordThatIsNone(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":7}`, `{"version":1,"heard":{"issuer":{"certificates":["eA=="]}}}`, `{"version":1,"under":[{"certificate":"eA=="}]}`} {
		if _, err := trust.Decode([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), "decode ") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// What an API server says of a source is bounded where it comes in: the volume's record and Events have it.
func TestALongProblemOfASource(t *testing.T) {
	m := trust.Memory{}.Update([]volume.Source{mesh}, func(volume.Source) trust.Answer {
		return trust.Answer{Err: errors.New(strings.Repeat("no ", 300<<10))}
	}, nil, time.Now())
	if _, problem, missing := m.Missing([]volume.Source{mesh}); !missing || len(problem) != 768 || !strings.HasSuffix(problem, "…") {
		t.Errorf("%t, %d bytes: %.100s", missing, len(problem), problem)
	}
}

// The text of the one source is passed on as it is, and what the pod has besides comes after it.
func TestText(t *testing.T) {
	a, b := newCA(t, "a", nil), newCA(t, "b", nil)
	text := "# The roots of Corp.\r\n" + string(list(a).Encode()) + string(list(a).Encode()) + "end"
	has := func(text string, sources ...volume.Source) trust.Memory {
		return again(t, trust.Memory{}.Update(sources, func(volume.Source) trust.Answer {
			return trust.Answer{Certificates: list(a), Text: []byte(text)}
		}, nil, time.Now()))
	}
	m := has(text, corp)
	for _, row := range []struct {
		name    string
		of      trust.Memory
		sources []volume.Source
		roots   chain.Bundle
		want    string
	}{
		{"the source's certificates", m, []volume.Source{corp}, list(a), text},
		{"an old root besides", m, []volume.Source{corp}, list(a, b), text + "\n" + string(list(b).Encode())},
		{"one that is distrusted", m, []volume.Source{corp}, nil, ""},
		{"two sources", has(text, corp, issuer), []volume.Source{corp, issuer}, list(a), ""},
		{"another source", m, []volume.Source{issuer}, list(a), ""},
	} {
		if got := string(row.of.Text(row.sources, row.roots)); got != row.want {
			t.Errorf("%s: %q\nwant %q", row.name, got, row.want)
		}
	}
	gone := m.Update([]volume.Source{corp}, func(volume.Source) trust.Answer { return trust.Answer{Err: errors.New("gone")} }, nil, time.Now())
	if got := string(gone.Text([]volume.Source{corp}, list(a))); got != text {
		t.Errorf("of a file that is gone: %q", got)
	}
}
