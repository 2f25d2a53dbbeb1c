package ca_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/signer/ca"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// now is the moment of these tests.
var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func root(t *testing.T, name string) ca.CA {
	t.Helper()
	made, err := ca.New(name, now.Add(-time.Hour), now.AddDate(1, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func keyPEM(t *testing.T, c ca.CA) []byte {
	t.Helper()
	text, err := c.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// pair is a certificate below a CA, and its key, in PEM.
func pair(t *testing.T, parent ca.CA, change func(*x509.Certificate)) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "below"}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 1, 0), PublicKey: private.Public(),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	change(template)
	signed, err := parent.Sign(template)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signed.Chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// below is a CA under another.
func below(t *testing.T, parent ca.CA, change func(*x509.Certificate)) ca.CA {
	t.Helper()
	certificate, key := pair(t, parent, change)
	c, err := ca.Parse(certificate, key, chain.Encode(parent.Roots...))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func same(*x509.Certificate) {}

func TestParse(t *testing.T) {
	top := root(t, "top")
	own, ownKey := chain.Encode(top.Certificate), keyPEM(t, top)
	sub, subKey := pair(t, top, same)
	leaf, leafKey := pair(t, top, func(c *x509.Certificate) { c.IsCA = false })
	mute, muteKey := pair(t, top, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })
	for _, row := range []struct {
		name                     string
		certificates, key, roots []byte
		want                     string // "intermediates/roots", or the error.
	}{
		{"it is its own root", own, ownKey, own, "0/1"},
		{"and nobody says so", own, ownKey, nil, "0/1"},
		{"below a root", sub, subKey, own, "1/1"},
		{"with its root, and nobody says so", append(sub, own...), subKey, nil, "1/1"},
		{"with its root", append(sub, own...), subKey, own, "1/1"},
		{"it is trusted itself", sub, subKey, sub, "0/1"},
		{"no root", sub, subKey, nil, "there is no root that CN=below leads to"},
		{"another's key", sub, ownKey, own, "read certificate and key: tls: private key does not match public key"},
		{"no key", own, nil, own, "read certificate and key: tls: failed to find any PEM data in key input"},
		{"no certificate", nil, ownKey, own, "read the certificates: there is no certificate in 0 bytes"},
		{"a key among the certificates", append(own, ownKey...), ownKey, own, `read the certificates: PEM block 2: it is a "PRIVATE KEY", not a CERTIFICATE`},
		{"roots that are none", own, ownKey, []byte("x"), "read the roots: there is no certificate in 1 bytes"},
		{"a damaged root", own, ownKey, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), "read the roots: PEM block 1: it is no certificate: x509: malformed certificate"},
		{"a leaf", leaf, leafKey, own, "CN=below is not a CA's certificate"},
		{"it may not sign", mute, muteKey, own, "CN=below has key usages without cert sign"},
	} {
		c, err := ca.Parse(row.certificates, row.key, row.roots)
		if got := fmt.Sprintf("%d/%d", len(c.Intermediates), len(c.Roots)); err == nil && got != row.want || err != nil && err.Error() != row.want {
			t.Errorf("%s: %s (%v), want %s", row.name, got, err, row.want)
		}
	}
}

func TestValidAt(t *testing.T) {
	top := root(t, "top")
	narrow := below(t, below(t, top, func(c *x509.Certificate) { c.MaxPathLenZero = true }), same)
	stranger, err := ca.Parse(chain.Encode(top.Certificate), keyPEM(t, top), chain.Encode(root(t, "other").Certificate))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name string
		ca   ca.CA
		at   time.Time
		want string
	}{
		{"a root", top, now, ""},
		{"below it", below(t, top, func(c *x509.Certificate) { c.MaxPathLenZero = true }), now, ""},
		{"two below it", below(t, below(t, top, same), same), now, ""},
		{"before", top, now.Add(-time.Hour - time.Second), "CN=top begins at 2026-11-24T11:00:00Z"},
		{"at its end", top, now.AddDate(1, 0, 0), "CN=top expired at 2027-11-24T12:00:00Z"},
		{"roots of another", stranger, now, "CN=top does not lead to its roots: "},
		{"under one that allows none", narrow, now, "the path length of a CA above CN=below does not allow it to sign"},
	} {
		if err := row.ca.ValidAt(row.at); (row.want == "") != (err == nil) || err != nil && !strings.HasPrefix(err.Error(), row.want) {
			t.Errorf("%s: %v, want %s", row.name, err, row.want)
		}
	}
}

// Whatever prints a CA does not print its key.
func TestTheKeyIsNotPrinted(t *testing.T) {
	c := root(t, "top")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, c); got != "CN=top" {
			t.Errorf("%s: %s", verb, got)
		}
	}
	if got := fmt.Sprint(ca.CA{}); got != "no CA" {
		t.Error(got)
	}
}
