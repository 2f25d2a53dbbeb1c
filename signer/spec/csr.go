package spec

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/mayfly-csi/mayfly/signer"
)

// CSR makes the signing request of a certificate, signed by its key: PKCS#10, DER.
func (s Spec) CSR(key crypto.Signer) ([]byte, error) {
	if s.LacksIP {
		return nil, errors.New("make the signing request: the pod's IP is not known")
	}
	extensions, err := extensions(s)
	if err != nil {
		return nil, fmt.Errorf("make the signing request: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:         s.Subject,
		RawSubject:      s.RawSubject,
		DNSNames:        s.DNSNames,
		IPAddresses:     s.IPs,
		URIs:            s.URIs,
		ExtraExtensions: extensions,
	}, key)
	if err != nil {
		return nil, fmt.Errorf("make the signing request: %w", err)
	}
	return csr, nil
}

// Request returns the request of an attempt to the signer. It names no volume.
func (s Spec) Request(attempt string, csr []byte) signer.Request {
	return signer.Request{
		Attempt:  signer.Attempt{ID: attempt, Pod: s.Pod},
		Issuer:   s.Issuer,
		CSR:      csr,
		Duration: s.Duration,
		Usages:   s.Usages,
		IsCA:     s.IsCA,

		Annotations: s.Annotations,
	}
}

// KindOf returns the kind of a public key, without an encoding; the zero kind if it is none that a pod may ask for.
func KindOf(public crypto.PublicKey) Key {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return Key{Algorithm: RSA, Size: k.N.BitLen()}
	case *ecdsa.PublicKey:
		return Key{Algorithm: ECDSA, Size: k.Curve.Params().BitSize}
	case ed25519.PublicKey:
		return Key{Algorithm: Ed25519}
	}
	return Key{}
}

// Matches reports whether a public key is of the kind.
func (k Key) Matches(public crypto.PublicKey) bool {
	is := KindOf(public)
	return is.Algorithm == k.Algorithm && is.Size == k.Size
}
