package trust_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mayfly-csi/mayfly/signer/chain"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A ca signs certificates.
type ca struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

// newCA is a CA that signs itself, or is signed by another.
func newCA(t testing.TB, name string, by *ca) *ca {
	t.Helper()
	template := template(name, 24*time.Hour)
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	return sign(t, template, by)
}

// leaf is a certificate that ends after a time.
func (c *ca) leaf(t testing.TB, lifetime time.Duration) *x509.Certificate {
	t.Helper()
	return sign(t, template("leaf", lifetime), c).Certificate
}

func template(name string, lifetime time.Duration) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lifetime),
	}
}

func sign(t testing.TB, template *x509.Certificate, by *ca) *ca {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.Certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &ca{certificate, key}
}

// equal demands the certificates in their order.
func equal(t testing.TB, what string, got, want chain.Bundle) {
	t.Helper()
	if !got.Equal(want) {
		t.Errorf("%s: got %s, want %s", what, names(got), names(want))
	}
}

func names(all chain.Bundle) (names []string) {
	for _, c := range all {
		names = append(names, c.String())
	}
	return names
}

func list(cas ...*ca) (all chain.Bundle) {
	for _, c := range cas {
		all = append(all, chain.Of(c.Certificate))
	}
	return all
}
