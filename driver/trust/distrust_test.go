package trust_test

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// fingerprints are those of CAs, as the operator lists them.
func fingerprints(of ...*ca) volume.Fingerprints {
	all := volume.Fingerprints{}
	for _, c := range of {
		all = append(all, volume.FingerprintOf(c.Raw))
	}
	if len(all) == 2 && strings.Compare(all[0].String(), all[1].String()) > 0 {
		all[0], all[1] = all[1], all[0]
	}
	return all
}

// distrusts is that the operator distrusts these CAs, and no other.
func distrusts(these ...*ca) event {
	return func(s *story) {
		s.Memory = s.Distrust(fingerprints(these...))
		says(volume.Source{}, "")(s) // The volume is updated.
	}
}

func TestDistrust(t *testing.T) {
	a, b, c := newCA(t, "a", nil), newCA(t, "b", nil), newCA(t, "c", nil)
	between := newCA(t, "between", a)
	hour, other := a.leaf(t, time.Hour), b.leaf(t, time.Hour)
	through, namesake := between.leaf(t, time.Hour), sign(t, template("a", time.Hour), a).Certificate
	der, err := x509.CreateCertificate(nil, b.Certificate, a.Certificate, b.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	cross := &ca{Certificate: parsed} // b, signed by a.
	of := func(s ...volume.Source) []volume.Source { return s }
	for _, row := range []struct {
		name    string
		sources []volume.Source
		events  []event
		want    chain.Bundle
		issuer  *ca // A distrusted one is above the pod's certificate.
		all     bool
	}{
		{"nothing", of(corp), []event{says(corp, "", a, b), issued(nil, hour), distrusts()}, list(a, b), nil, false},
		{"of a source", of(corp), []event{says(corp, "", a, b), issued(nil, other), distrusts(a)}, list(b), nil, false},
		{"of the issuer", of(corp, issuer), []event{says(corp, "", b), issued(a, hour), distrusts(a)}, list(b), a, false},
		{"of two sources", of(corp, mesh), []event{says(corp, "", a, b), says(mesh, "", c, a), distrusts(a)}, list(b, c), nil, false},
		{"that removed issuers keep", of(corp), []event{says(corp, "", a, b), issued(nil, hour), says(corp, "", b), distrusts(a)}, list(b), a, false},
		{"before it is removed", of(corp), []event{says(corp, "", a, b), issued(nil, hour), distrusts(a), says(corp, "", b)}, list(b), a, false},
		{"before it is there", of(corp), []event{says(corp, "", b), issued(nil, other), distrusts(a), says(corp, "", a, b)}, list(b), nil, false},
		{"before it is issued", of(issuer), []event{distrusts(a), issued(a, hour)}, nil, a, true},
		{"before it is issued, as no source", of(corp), []event{says(corp, "", b), distrusts(a), issued(a, hour)}, list(b), a, false},
		{"of an issuer that is no source", of(corp), []event{says(corp, "", b), issued(a, hour), distrusts(a)}, list(b), a, false},
		{"of a source that can't be read", of(corp), []event{says(corp, "", a, b), says(corp, "gone"), distrusts(a)}, list(b), nil, false},
		{"of a chain: the root", of(corp), []event{says(corp, "", a, between, c), issued(nil, through), distrusts(a)}, list(between, c), a, false},
		{"of a chain: one between", of(corp), []event{says(corp, "", a, c), issued(nil, through, between.Certificate), distrusts(between)}, list(a, c), nil, false},
		{"all", of(corp), []event{says(corp, "", a), issued(nil, other), distrusts(a)}, nil, nil, true},
		{"all of none", of(issuer), []event{issued(nil, hour), distrusts(b)}, nil, nil, false},
		{"both", of(corp), []event{says(corp, "", a, b), issued(nil, hour), distrusts(a, b)}, nil, a, true},
		{"a root with another beside it", of(corp), []event{says(corp, "", a, b), issued(nil, other, cross.Certificate), distrusts(a)}, list(b), nil, false},
		{"the list gets shorter", of(corp), []event{says(corp, "", a, b), issued(nil, hour), distrusts(a, b), distrusts(b)}, list(a), nil, false},
		{"the list gets shorter, and no source has it", of(corp), []event{
			says(corp, "", a, b), issued(nil, hour), distrusts(a), says(corp, "", b), distrusts()}, list(b), nil, false},
		{"issued while it is distrusted, and no source has it", of(corp), []event{
			distrusts(a), says(corp, "", a, b), issued(nil, hour), says(corp, "", b), distrusts()}, list(b), nil, false},
		{"and the source has it again", of(corp), []event{
			says(corp, "", a, b), issued(nil, hour), distrusts(a), says(corp, "", b), distrusts(), says(corp, "", b, a)}, list(b, a), nil, false},
		{"after the pod's certificate", of(corp), []event{
			says(corp, "", b), issued(nil, hour), distrusts(a), says(corp, "", a, b)}, list(b), a, false},
		{"a certificate that has its issuer's name", of(corp), []event{says(corp, "", a, b), issued(nil, namesake), distrusts(a)}, list(b), a, false},
		{"another certificate, of an unknown root", of(corp), []event{
			says(corp, "", c), issued(a, hour), distrusts(a), issued(nil, other)}, list(c), nil, false},
		{"another certificate", of(corp), []event{says(corp, "", a, b), issued(nil, hour), distrusts(a), issued(nil, other)}, list(b), nil, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := tell(t, row.sources, row.events...)
			equal(t, "roots", s.roots(), row.want)
			want := ""
			if row.issuer != nil {
				want = row.issuer.Subject.String() + " (SHA-256 " + fingerprints(row.issuer)[0].String() + ")"
			}
			if got := s.DistrustedIssuer(); got != want {
				t.Errorf("the distrusted issuer is %q, want %q", got, want)
			}
			if got := s.AllDistrusted(s.sources, s.now); got != row.all {
				t.Errorf("all distrusted: %v", got)
			}
			before := s.roots()
			s.Memory = s.Distrust(nil) // As after a restart, before the list is read.
			equal(t, "roots without a list", s.roots(), before)
		})
	}
}

// A root that was kept because of a certificate under it is not given up for one that is distrusted.
func TestARemovedRootBesideADistrustedOne(t *testing.T) {
	a, b := newCA(t, "a", nil), newCA(t, "b", nil)
	der, err := x509.CreateCertificate(nil, b.Certificate, a.Certificate, b.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	cross, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	// The source has the root of the cross certificate, which alone is in the pod's chain, and loses the other.
	s := tell(t, []volume.Source{corp},
		says(corp, "", a, b), issued(nil, b.leaf(t, time.Hour), cross), distrusts(a), says(corp, "", a), issued(nil, b.leaf(t, 3*time.Hour), cross))
	equal(t, "roots", s.roots(), list(b))
	s.now = s.now.Add(2 * time.Hour)
	equal(t, "roots under the second certificate", s.roots(), list(b))
}
