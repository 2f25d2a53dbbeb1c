// Package ca provides certificate authorities as values: it parses them from PEM, makes them, and signs with them. It
// does no I/O.
//
// A parsed CA is consistent: its key is that of the certificate, which is a CA's. [CA.ValidAt] reports whether it is
// valid, and leads to its roots, at a time.
package ca

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/mayfly-csi/mayfly/signer/chain"
)

// A CA signs certificates. Its methods hide its key from logs.
type CA struct {
	Certificate   *x509.Certificate
	Intermediates []*x509.Certificate // Sent with each leaf: from its own certificate to a root, without roots.
	Roots         []*x509.Certificate // The roots by which peers verify its certificates.

	key crypto.Signer
}

// String returns the CA's subject, without the key.
func (c CA) String() string {
	if c.Certificate == nil {
		return "no CA"
	}
	return c.Certificate.Subject.String()
}

// GoString hides the key, too.
func (c CA) GoString() string { return c.String() }

// maxKey is more bytes of PEM than an RSA key of [chain.MaxKeyBits] has: one without a limit would take any time.
const maxKey = 16 << 10

// Parse parses a CA in PEM: its certificate, followed by others that lead to a root; its key; and the roots. Without
// roots, the self-signed ones among the certificates are its roots.
func Parse(certificates, key, roots []byte) (CA, error) {
	all, err := Decode(certificates)
	if err != nil {
		return CA{}, fmt.Errorf("read the certificates: %w", err)
	}
	if n := len(key); n > maxKey {
		return CA{}, fmt.Errorf("the key has %d bytes: at most %d", n, maxKey)
	}
	pair, err := tls.X509KeyPair(certificates, key)
	if err != nil {
		return CA{}, fmt.Errorf("read certificate and key: %w", err)
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return CA{}, fmt.Errorf("a %T can't sign", pair.PrivateKey)
	}
	c := CA{Certificate: all[0], Roots: slices.DeleteFunc(slices.Clone(all), notSelfSigned), key: signer}
	if len(roots) > 0 {
		if c.Roots, err = Decode(roots); err != nil {
			return CA{}, fmt.Errorf("read the roots: %w", err)
		}
	}
	c.Intermediates = slices.DeleteFunc(all, func(one *x509.Certificate) bool {
		return !notSelfSigned(one) || Has(c.Roots, one)
	})
	return c, c.check()
}

// check returns an error if the CA is not valid at any time.
func (c CA) check() error {
	switch own := c.Certificate; {
	case !own.IsCA || !own.BasicConstraintsValid:
		return fmt.Errorf("%s is not a CA's certificate", c)
	case own.KeyUsage != 0 && own.KeyUsage&x509.KeyUsageCertSign == 0:
		return fmt.Errorf("%s has key usages without cert sign", c)
	case len(c.Roots) == 0:
		return fmt.Errorf("there is no root that %s leads to", c)
	}
	return nil
}

// notSelfSigned reports whether another signed the certificate.
func notSelfSigned(c *x509.Certificate) bool {
	return !bytes.Equal(c.RawIssuer, c.RawSubject) || c.CheckSignatureFrom(c) != nil
}

// ValidAt returns why peers that trust the roots would not accept certificates of the CA at a time; nil if they would.
func (c CA) ValidAt(now time.Time) error {
	switch own := c.Certificate; {
	case now.Before(own.NotBefore):
		return fmt.Errorf("%s begins at %s", c, chain.Stamp(own.NotBefore))
	case !now.Before(own.NotAfter):
		return fmt.Errorf("%s expired at %s", c, chain.Stamp(own.NotAfter))
	}
	chains, err := c.verify(c.Certificate, now, x509.ExtKeyUsageAny)
	if err != nil {
		return fmt.Errorf("%s does not lead to its roots: %w", c, err)
	}
	if !slices.ContainsFunc(chains, allowsLeaf) {
		return fmt.Errorf("the path length of a CA above %s does not allow it to sign", c)
	}
	return nil
}

// allowsLeaf reports whether the path lengths in a CA's chain allow one more certificate (RFC 5280, section 4.2.1.9).
func allowsLeaf(chain []*x509.Certificate) bool {
	for below, one := range chain {
		if one.MaxPathLen >= 0 && below > one.MaxPathLen {
			return false
		}
	}
	return true
}

// verify returns the chains of a certificate to the roots at a time.
func (c CA) verify(one *x509.Certificate, now time.Time, usages ...x509.ExtKeyUsage) ([][]*x509.Certificate, error) {
	return one.Verify(x509.VerifyOptions{
		Roots: pool(c.Roots), Intermediates: pool(c.Intermediates), CurrentTime: now, KeyUsages: usages,
	})
}

// pool returns the certificates as a pool.
func pool(certificates []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certificates {
		p.AddCert(c)
	}
	return p
}

// Decode parses certificates in PEM. One that crypto/x509 can't parse is an error.
func Decode(text []byte) ([]*x509.Certificate, error) {
	all, err := chain.Parse(text)
	if err != nil {
		return nil, err
	}
	return all.X509()
}

// Has reports whether all has the certificate.
func Has(all []*x509.Certificate, one *x509.Certificate) bool {
	return slices.ContainsFunc(all, one.Equal)
}
