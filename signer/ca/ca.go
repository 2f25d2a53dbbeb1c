// Package ca is certificate authorities as values: read from PEM, made, and signed with. It knows nothing of where they are kept.
//
// A CA that was read is whole: its key is the certificate's, and it is a CA's certificate. Whether it is good at a moment, and is trusted by what is
// published with it, is asked with that moment's time.
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

// A CA signs certificates. Its key is seen by nobody.
type CA struct {
	Certificate   *x509.Certificate
	Intermediates []*x509.Certificate // What goes with a leaf that it signs, up to a root and without it: its own certificate first, unless that is a root.
	Roots         []*x509.Certificate // What those trust who trust the CA.

	key crypto.Signer
}

// String is the CA's name; the key is not in it.
func (c CA) String() string {
	if c.Certificate == nil {
		return "no CA"
	}
	return c.Certificate.Subject.String()
}

// GoString hides the key, too.
func (c CA) GoString() string { return c.String() }

// Parse reads a CA: its certificate, with others that lead to a root after it; its key; and the roots. All is PEM. Without roots those of certificates are
// taken that signed themselves.
func Parse(certificates, key, roots []byte) (CA, error) {
	pair, err := tls.X509KeyPair(certificates, key)
	if err != nil {
		return CA{}, fmt.Errorf("read certificate and key: %w", err)
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return CA{}, fmt.Errorf("a %T can't sign", pair.PrivateKey)
	}
	all, err := Decode(certificates)
	if err != nil {
		return CA{}, fmt.Errorf("read the certificates: %w", err)
	}
	c := CA{Certificate: all[0], Roots: slices.DeleteFunc(slices.Clone(all), isNoRoot), key: signer}
	if len(roots) > 0 {
		if c.Roots, err = Decode(roots); err != nil {
			return CA{}, fmt.Errorf("read the roots: %w", err)
		}
	}
	c.Intermediates = slices.DeleteFunc(all, func(one *x509.Certificate) bool {
		return !isNoRoot(one) || Has(c.Roots, one)
	})
	return c, c.check()
}

// check is what must be true of a CA at any time.
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

// isNoRoot reports whether another signed the certificate.
func isNoRoot(c *x509.Certificate) bool {
	return !bytes.Equal(c.RawIssuer, c.RawSubject) || c.CheckSignatureFrom(c) != nil
}

// ValidAt is why certificates that the CA signs would not be accepted at a time by those who trust its roots; nil if they would.
func (c CA) ValidAt(now time.Time) error {
	switch own := c.Certificate; {
	case now.Before(own.NotBefore):
		return fmt.Errorf("%s begins at %s", c, stamp(own.NotBefore))
	case !now.Before(own.NotAfter):
		return fmt.Errorf("%s expired at %s", c, stamp(own.NotAfter))
	}
	chains, err := c.verify(c.Certificate, now, x509.ExtKeyUsageAny)
	if err != nil {
		return fmt.Errorf("%s does not lead to its roots: %w", c, err)
	}
	if !slices.ContainsFunc(chains, leaves) {
		return fmt.Errorf("the path length of a CA above %s does not allow it to sign", c)
	}
	return nil
}

// leaves reports whether the path lengths in a CA's chain allow one more certificate below it (RFC 5280, section 4.2.1.9).
func leaves(chain []*x509.Certificate) bool {
	for below, one := range chain {
		if one.MaxPathLen >= 0 && below > one.MaxPathLen {
			return false
		}
	}
	return true
}

func (c CA) verify(one *x509.Certificate, now time.Time, usages ...x509.ExtKeyUsage) ([][]*x509.Certificate, error) {
	return one.Verify(x509.VerifyOptions{Roots: pool(c.Roots), Intermediates: pool(c.Intermediates), CurrentTime: now, KeyUsages: usages})
}

func pool(certificates []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certificates {
		p.AddCert(c)
	}
	return p
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Decode reads certificates in PEM, which a CA must be able to parse.
func Decode(text []byte) ([]*x509.Certificate, error) {
	all, err := chain.Parse(text)
	if err != nil {
		return nil, err
	}
	return all.X509()
}

// Has reports whether a certificate is among others.
func Has(all []*x509.Certificate, one *x509.Certificate) bool {
	return slices.ContainsFunc(all, one.Equal)
}
