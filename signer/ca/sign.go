package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"time"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// Template returns the certificate that a request asks for, without times. It does not check the request's signature:
// the caller knows who made it.
func Template(csr *x509.CertificateRequest, usages []signer.Usage, isCA bool) (*x509.Certificate, error) {
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

// Sign signs the template, with its key and its times, which must be within the CA's. It does not check whether peers
// would accept the certificate: who gets it does (package chain), since names and usages may not be the CA's to give.
func (c CA) Sign(template *x509.Certificate) (signer.Issued, error) {
	if own := c.Certificate; template.NotAfter.After(own.NotAfter) {
		const format = "%s ends at %s, before the certificate that it is to sign"
		return signer.Issued{}, fmt.Errorf(format, c, chain.Stamp(own.NotAfter))
	}
	der, err := c.sign(*template)
	if err != nil {
		return signer.Issued{}, fmt.Errorf("sign a certificate: %w", err)
	}
	return signer.Issued{
		Chain: append(chain.EncodeDER(der), chain.Encode(c.Intermediates...)...),
		CA:    chain.Encode(c.Roots...),
	}, nil
}

// sign signs the template, without checks.
func (c CA) sign(template x509.Certificate) (der []byte, err error) {
	template.SerialNumber = nil // crypto/x509 draws one, of 20 octets at most (RFC 5280, section 4.1.2.2).
	template.AuthorityKeyId = nil
	if template.SubjectKeyId, err = keyID(template.PublicKey); err != nil {
		return nil, err
	}
	return x509.CreateCertificate(rand.Reader, &template, c.Certificate, template.PublicKey, c.key)
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
