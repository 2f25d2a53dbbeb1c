package chain_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/signer/chain"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// A party has a key and a certificate for it.
type party struct {
	*x509.Certificate
	key crypto.Signer
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// root makes a CA that signed itself and lasts for ten years.
func root(t testing.TB, name string, edits ...func(*x509.Certificate)) party {
	t.Helper()
	return sign(t, ca(name, edits...), nil, newKey(t))
}

// under makes a CA below another, for a year.
func (p party) under(t testing.TB, name string, edits ...func(*x509.Certificate)) party {
	t.Helper()
	return sign(t, ca(name, append([]func(*x509.Certificate){ends(365 * 24 * time.Hour)}, edits...)...), &p, newKey(t))
}

// leaf makes a certificate of 90 days.
func (p party) leaf(t testing.TB, edits ...func(*x509.Certificate)) party {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "web"}, DNSNames: []string{"web.example"}, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(90 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, edit := range edits {
		edit(template)
	}
	return sign(t, template, &p, newKey(t))
}

func ca(name string, edits ...func(*x509.Certificate)) *x509.Certificate {
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	for _, edit := range edits {
		edit(template)
	}
	return template
}

func ends(after time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotAfter = now.Add(after) }
}

func begins(after time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore = now.Add(after) }
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	return n.SetBit(n, 61, 1) // Of eight bytes, and positive.
}

func sign(t testing.TB, template *x509.Certificate, by *party, key crypto.Signer) party {
	t.Helper()
	if template.SerialNumber == nil {
		template.SerialNumber = serial(t)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.Certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return party{parse(t, der), key}
}

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// block writes DER in PEM.
func block(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// text writes certificates in PEM.
func text(all ...party) (text string) {
	for _, p := range all {
		text += block(p.Raw)
	}
	return text
}

// negative makes a root with a negative serial number, as old distributions have them. crypto/x509 can't parse it.
func negative(t testing.TB, name string) []byte {
	t.Helper()
	return resigned(t, root(t, name), func(tbs []byte, c *x509.Certificate) {
		number := c.SerialNumber.Bytes()
		i := bytes.Index(tbs, append([]byte{asn1.TagInteger, byte(len(number))}, number...))
		if i < 0 {
			t.Fatal("no serial number")
		}
		tbs[i+2] |= 0x80
	})
}

// resigned changes a root and has it sign itself again.
func resigned(t testing.TB, p party, change func(tbs []byte, c *x509.Certificate)) []byte {
	t.Helper()
	tbs := bytes.Clone(p.RawTBSCertificate)
	change(tbs, p.Certificate)
	sum := sha256.Sum256(tbs)
	signature, err := p.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return assemble(t, p, tbs, signature)
}

// assemble makes a certificate of the given parts, and the signature algorithm of another.
func assemble(t testing.TB, p party, tbs, signature []byte) []byte {
	t.Helper()
	var parts struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(p.Raw, &parts); err != nil {
		t.Fatal(err)
	}
	parts.TBS, parts.Signature = asn1.RawValue{FullBytes: tbs}, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	der, err := asn1.Marshal(parts)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// huge makes a certificate with an RSA key of so many bits, which nobody has.
func huge(t testing.TB, bits int) party {
	t.Helper()
	n := new(big.Int).SetBit(big.NewInt(1), bits-1, 1)
	signer := root(t, "signer")
	der, err := x509.CreateCertificate(rand.Reader, ca("huge"), signer.Certificate, &rsa.PublicKey{N: n, E: 1<<31 - 1}, signer.key)
	if err != nil {
		t.Fatal(err)
	}
	return party{Certificate: parse(t, der)}
}

func bundle(t testing.TB, text string) chain.Bundle {
	t.Helper()
	if text == "" {
		return nil
	}
	b, err := chain.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
