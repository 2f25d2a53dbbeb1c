package trust_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/trust"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// unparsed is the CA with a negative serial number, which crypto/x509 does not parse.
func unparsed(t *testing.T, c *ca) chain.Certificate {
	t.Helper()
	number := c.SerialNumber.Bytes()
	i := bytes.Index(c.Raw, append([]byte{asn1.TagInteger, byte(len(number))}, number...))
	if i < 0 {
		t.Fatal("no serial number")
	}
	der := bytes.Clone(c.Raw)
	der[i+2] |= 0x80
	read, err := chain.FromDER(der)
	if err != nil {
		t.Fatal(err)
	}
	return read
}

func numbered(t *testing.T, name string) *ca {
	t.Helper()
	template := template(name, 24*time.Hour)
	template.SerialNumber, template.IsCA, template.BasicConstraintsValid = big.NewInt(0x123456), true, true
	return sign(t, template, nil)
}

// A certificate that can't be parsed is one like the others: it is shown, named, and stays as long as a certificate
// of the volume is under its name.
func TestACertificateThatCantBeParsed(t *testing.T) {
	a, b := numbered(t, "a"), newCA(t, "b", nil)
	old := unparsed(t, a)
	has := func(all ...chain.Certificate) event {
		return func(s *story) {
			s.Memory = s.Update(s.sources, func(volume.Source) trust.Answer { return trust.Answer{Certificates: all} }, s.chain, s.now)
		}
	}
	s := tell(t, []volume.Source{corp}, has(old, chain.Of(b.Certificate)), issued(nil, a.leaf(t, time.Hour)))
	equal(t, "roots", s.roots(), chain.Bundle{old, chain.Of(b.Certificate)})
	want := "file:corp: CN=a can't be parsed (x509: negative serial number): it is passed on as it is, unchecked"
	if got := s.Unparsed(); len(got) != 1 || got["file:corp"] != want {
		t.Errorf("%q", got)
	}
	if got := s.Problems(); len(got) != 0 {
		t.Errorf("troubles: %q", got)
	}
	s.goOn(t, says(corp, "", b))
	equal(t, "it is gone, and a certificate is under it", s.roots(), chain.Bundle{chain.Of(b.Certificate), old})
	if got := s.Unparsed(); len(got) != 0 {
		t.Errorf("%q", got)
	}
	s.now = s.now.Add(2 * time.Hour)
	equal(t, "and none any more", s.roots(), list(b))
}

// A root with the name of another, and another key, has no certificate under it.
func TestKeyIdentifiersTellNamesakesApart(t *testing.T) {
	a, namesake, b := newCA(t, "a", nil), newCA(t, "a", nil), newCA(t, "b", nil)
	s := tell(t, []volume.Source{corp}, says(corp, "", a, namesake, b), issued(nil, a.leaf(t, time.Hour)), says(corp, "", b))
	equal(t, "roots", s.roots(), list(b, a))
}

// rogue is a CA with the name and key identifier of another, which are public, and a key of its own.
func rogue(t *testing.T, like *ca) *ca {
	t.Helper()
	c := template("", 24*time.Hour)
	c.Subject, c.SubjectKeyId, c.IsCA, c.BasicConstraintsValid = like.Subject, like.SubjectKeyId, true, true
	return sign(t, c, nil)
}

// A root that signed nothing of the volume goes at once, whatever its name and key identifier, and pushes out none.
func TestARogueRoot(t *testing.T) {
	a, b := newCA(t, "a", nil), newCA(t, "b", nil)
	bad := rogue(t, a)
	hour, longer := a.leaf(t, time.Hour), a.leaf(t, 2*time.Hour)
	start := []event{says(corp, "", a, b), issued(nil, hour)}

	s := tell(t, []volume.Source{corp}, append(start, says(corp, "", bad, a, b), says(corp, "", a, b))...)
	equal(t, "it came and went", s.roots(), list(a, b))

	s = tell(t, []volume.Source{corp}, append(start, says(corp, "", bad, b), issued(nil, longer))...)
	equal(t, "it came in place of the issuer's root", s.roots(), list(bad, b, a))
	s.goOn(t, says(corp, "", b))
	s.now = s.now.Add(61 * time.Minute)
	equal(t, "it went, and the issuer's root has a new certificate under it", s.roots(), list(b, a))

	between := newCA(t, "between", a)
	s = tell(t, []volume.Source{corp}, says(corp, "", bad, b), issued(nil, between.leaf(t, time.Hour), between.Certificate))
	s.goOn(t, says(corp, "", b))
	equal(t, "it was above an intermediate by its name", s.roots(), list(b))

	s = tell(t, []volume.Source{issuer}, issued(bad, hour), issued(nil, longer))
	equal(t, "it was the issuer's, which tells none any more", s.roots(), nil)
}

// Many of them use up the checks: the root that had a certificate under it before is checked first, and they go.
func TestManyRogueRoots(t *testing.T) {
	a, b := newCA(t, "a", nil), newCA(t, "b", nil)
	var bad []*ca
	for range 40 {
		bad = append(bad, rogue(t, a))
	}
	s := tell(t, []volume.Source{corp}, says(corp, "", a, b), issued(nil, a.leaf(t, time.Hour)),
		says(corp, "", append(bad, a)...), issued(nil, a.leaf(t, 2*time.Hour)), says(corp, "", b))
	s.now = s.now.Add(61 * time.Minute)
	equal(t, "roots", s.roots(), list(b, a))

	s = tell(t, []volume.Source{corp}, says(corp, "", append(bad, a)...), issued(nil, a.leaf(t, time.Hour)), says(corp, "", b))
	equal(t, "the checks end before one that is new", s.roots(), list(b))
}

// Who writes a source can make certificates with any key and any signature. Few are verified, so that none takes long.
func TestSourcesCostFewSignatures(t *testing.T) {
	a := newCA(t, "a", nil)
	huge := func(bits int) *x509.Certificate {
		n := new(big.Int).SetBit(big.NewInt(1), bits-1, 1)
		template := template("evil", time.Hour)
		template.IsCA, template.BasicConstraintsValid = true, true
		der, err := x509.CreateCertificate(rand.Reader, template, a.Certificate, &rsa.PublicKey{N: n, E: 1<<31 - 1}, a.key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if _, err := chain.Parse(chain.Encode(huge(64 << 10))); err == nil || !strings.Contains(err.Error(), "its RSA key has 65536 bits: the limit is 8192") {
		t.Errorf("a source with it: %v", err)
	}
	evil := huge(8192)
	leaf := a.leaf(t, time.Hour)
	many := list(a)
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for range 200 { // With the name and the key of a, and a signature that seems to be evil's.
		cross := template("a", time.Hour)
		cross.IsCA, cross.BasicConstraintsValid, cross.SubjectKeyId, cross.SignatureAlgorithm = true, true, a.SubjectKeyId, x509.SHA256WithRSA
		der, err := x509.CreateCertificate(rand.Reader, cross, &x509.Certificate{RawSubject: evil.RawSubject, Subject: evil.Subject, PublicKey: small.Public()}, a.key.Public(), small)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		many = append(many, chain.Of(c))
	}
	many = append(many, chain.Of(evil))
	begin := time.Now()
	s := tell(t, []volume.Source{corp}, func(s *story) {
		s.Memory = s.Issued(s.sources, nil, chain.BundleOf(leaf), s.now, chain.NewChecks(trust.MaxChecks)).Update(s.sources, func(volume.Source) trust.Answer { return trust.Answer{Certificates: many} }, chain.BundleOf(leaf), s.now)
	})
	if took := time.Since(begin); took > 2*time.Second || len(s.roots()) != len(many) {
		t.Errorf("one look took %s, and %d certificates are shown", took, len(s.roots()))
	}
}
