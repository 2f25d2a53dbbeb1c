package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// Signed is a certificate, and the answer that has it.
type Signed struct {
	Leaf *x509.Certificate
	signer.Issued
}

// Template returns the certificate that a request asks for, without times. It checks the request's signature.
func Template(csr *x509.CertificateRequest, usages []signer.Usage, isCA bool) (*x509.Certificate, error) {
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("check the signing request's signature: %w", err)
	}
	usage, extended, err := signer.X509(usages)
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		RawSubject:            csr.RawSubject,
		DNSNames:              csr.DNSNames,
		IPAddresses:           csr.IPAddresses,
		URIs:                  csr.URIs,
		PublicKey:             csr.PublicKey,
		KeyUsage:              usage,
		ExtKeyUsage:           extended,
		IsCA:                  isCA,
		BasicConstraintsValid: true,
	}, nil
}

// The API server requires of the certificate of a PodCertificateRequest that it is valid for at least an hour, and
// began no more than 5 minutes ago (k8s.io/kubernetes pkg/apis/certificates/validation,
// ValidatePodCertificateRequestStatusUpdate).
const (
	shortest = time.Hour
	backdate = 2 * time.Minute
)

// Validity returns when a certificate for a PodCertificateRequest begins and ends: a little before now, so that
// clocks that are behind accept it, and a lifetime after that; or with the CA, if that ends first. A certificate that
// would not be valid as long as the API server requires is an error.
func (c CA) Validity(now time.Time, lifetime time.Duration) (begin, end time.Time, err error) {
	begin = now.Add(-backdate)
	if begin.Before(c.Certificate.NotBefore) {
		begin = c.Certificate.NotBefore
	}
	begin = begin.UTC().Truncate(time.Second)
	end = begin.Add(lifetime).Truncate(time.Second)
	if lifetime < shortest {
		return begin, end, fmt.Errorf("a lifetime of %s is less than the %s that Kubernetes wants", lifetime, shortest)
	}
	if end.After(c.Certificate.NotAfter) {
		end = c.Certificate.NotAfter
	}
	if end.Sub(begin) < shortest {
		const format = "%s %s, and Kubernetes wants certificates of %s at least"
		return begin, end, fmt.Errorf(format, c, chain.EndsAt(c.Certificate.NotAfter, now), shortest)
	}
	return begin, end, nil
}

// Sign signs the template, with its key and its times, which must be within the CA's. A certificate that peers would
// not accept now is an error, such as one with names that a name constraint of the CA's issuers excludes.
func (c CA) Sign(template *x509.Certificate, now time.Time) (Signed, error) {
	if own := c.Certificate; template.NotAfter.After(own.NotAfter) {
		return Signed{}, fmt.Errorf("%s ends at %s, before the certificate that it is to sign", c, chain.Stamp(own.NotAfter))
	}
	leaf, err := c.sign(*template)
	if err != nil {
		return Signed{}, fmt.Errorf("sign a certificate: %w", err)
	}
	if err := c.verifyLeaf(*leaf, now); err != nil {
		return Signed{}, fmt.Errorf("check the certificate that %s signed: %w", c, err)
	}
	return Signed{Leaf: leaf, Issued: signer.Issued{
		Chain: chain.Encode(append([]*x509.Certificate{leaf}, c.Intermediates...)...),
		CA:    chain.Encode(c.Roots...),
	}}, nil
}

// sign signs the template, without checks.
func (c CA) sign(template x509.Certificate) (_ *x509.Certificate, err error) {
	template.SerialNumber = nil // crypto/x509 draws one, of 20 octets at most (RFC 5280, section 4.1.2.2).
	template.AuthorityKeyId = nil
	if template.SubjectKeyId, err = keyID(template.PublicKey); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, c.Certificate, template.PublicKey, c.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// verifyLeaf returns why peers that trust the roots would not accept the leaf now; nil if they would.
func (c CA) verifyLeaf(leaf x509.Certificate, now time.Time) error {
	usages := slices.Clone(leaf.ExtKeyUsage)
	if len(usages) == 0 {
		usages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	}
	// crypto/x509 does not know every kind of name, and a critical extension with such ones alone counts as not
	// handled.
	leaf.UnhandledCriticalExtensions = nil
	_, err := c.verify(&leaf, now, usages...)
	return err
}

// keyID returns a key's identifier: 160 bits of a hash of it (RFC 7093, section 2, method 1).
func keyID(key crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(info.Key.Bytes)
	return sum[:20], nil
}
