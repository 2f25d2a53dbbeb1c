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

// Signed is a certificate, and what goes to the one who asked for it.
type Signed struct {
	Leaf *x509.Certificate
	signer.Issued
}

// Template is what a request asks for, as its key signed it, but for the times.
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

// What the API server demands of the certificate of a PodCertificateRequest (k8s.io/kubernetes pkg/apis/certificates/validation,
// ValidatePodCertificateRequestStatusUpdate): it lasts for an hour at least, and began no more than 5 minutes ago.
const (
	shortest = time.Hour
	backdate = 2 * time.Minute
)

// Validity is when a certificate for a PodCertificateRequest begins and ends: a little before now, so that clocks that are behind accept it, and a lifetime
// later, of which that little is a part; or with the CA, if that ends first. A certificate that would not last as long as the API server demands is an error.
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
		return begin, end, fmt.Errorf("%s ends at %s, and Kubernetes wants certificates of %s at least", c, stamp(c.Certificate.NotAfter), shortest)
	}
	return begin, end, nil
}

// Sign signs what the template says, with its key and its times, which the CA must outlive. What those who trust the CA's roots would not accept now is an
// error, such as names that a CA above may not have signed.
func (c CA) Sign(template *x509.Certificate, now time.Time) (Signed, error) {
	if own := c.Certificate; template.NotAfter.After(own.NotAfter) {
		return Signed{}, fmt.Errorf("%s ends at %s, before the certificate that it is to sign", c, stamp(own.NotAfter))
	}
	leaf, err := c.sign(*template)
	if err != nil {
		return Signed{}, fmt.Errorf("sign a certificate: %w", err)
	}
	if err := c.accepts(*leaf, now); err != nil {
		return Signed{}, fmt.Errorf("check the certificate that %s signed: %w", c, err)
	}
	return Signed{Leaf: leaf, Issued: signer.Issued{
		Chain: chain.Encode(append([]*x509.Certificate{leaf}, c.Intermediates...)...),
		CA:    chain.Encode(c.Roots...),
	}}, nil
}

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

// accepts is why the leaf is not accepted.
func (c CA) accepts(leaf x509.Certificate, now time.Time) error {
	usages := slices.Clone(leaf.ExtKeyUsage)
	if len(usages) == 0 {
		usages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	}
	// crypto/x509 does not know every kind of name, and a critical extension with such ones alone counts as not handled.
	leaf.UnhandledCriticalExtensions = nil
	_, err := c.verify(&leaf, now, usages...)
	return err
}

// keyID is a key's identifier: 160 bits of a hash of it (RFC 7093, section 2, method 1).
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
