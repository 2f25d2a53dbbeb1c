// Package request turns a volume into a key and a certificate signing request, and checks the answer against it.
//
// It is pure but for the random source: the approver of a cluster derives from a pod the very request that the node
// derives.
package request

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// keyBlock is the type of a PKCS#8 key's PEM block (RFC 7468, section 10).
const keyBlock = "PRIVATE KEY"

var errNoKey = errors.New("decode the key: no PRIVATE KEY block")

// NewAttempt returns the id of a new attempt: 26 characters of [a-z2-7], 130 random bits.
func NewAttempt() string { return strings.ToLower(rand.Text()) }

// NewKey makes a private key of the kind that the volume asks for.
func NewKey(k volume.Key) (crypto.Signer, error) {
	switch k.Algorithm {
	case volume.RSA:
		return rsa.GenerateKey(rand.Reader, k.Size)
	case volume.Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case volume.ECDSA:
		return ecdsa.GenerateKey(curve(k.Size), rand.Reader)
	}
	return nil, fmt.Errorf("make a key: unknown algorithm %q", k.Algorithm)
}

// KindOf returns the kind of a public key, without an encoding; the zero kind if it is none that a pod may ask for.
func KindOf(public crypto.PublicKey) volume.Key {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return volume.Key{Algorithm: volume.RSA, Size: k.N.BitLen()}
	case *ecdsa.PublicKey:
		return volume.Key{Algorithm: volume.ECDSA, Size: k.Curve.Params().BitSize}
	case ed25519.PublicKey:
		return volume.Key{Algorithm: volume.Ed25519}
	}
	return volume.Key{}
}

// IsOfKind reports whether a public key is of the kind that a volume asks for.
func IsOfKind(public crypto.PublicKey, k volume.Key) bool {
	is := KindOf(public)
	return is.Algorithm == k.Algorithm && is.Size == k.Size
}

func curve(size int) elliptic.Curve {
	switch size {
	case 384:
		return elliptic.P384()
	case 521:
		return elliptic.P521()
	}
	return elliptic.P256()
}

// CSR makes the signing request of a volume, signed by its key: PKCS#10, DER.
func CSR(v volume.Volume, key crypto.Signer) ([]byte, error) {
	if v.LacksIP {
		return nil, errors.New("make the signing request: the pod's IP is not known")
	}
	extensions, err := extensions(v)
	if err != nil {
		return nil, fmt.Errorf("make the signing request: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:         v.Subject,
		RawSubject:      v.RawSubject,
		DNSNames:        v.DNSNames,
		IPAddresses:     v.IPs,
		URIs:            v.URIs,
		ExtraExtensions: extensions,
	}, key)
	if err != nil {
		return nil, fmt.Errorf("make the signing request: %w", err)
	}
	return csr, nil
}

// New returns the request of an attempt to the signer.
func New(v volume.Volume, attempt string, csr []byte) signer.Request {
	return signer.Request{
		Attempt:  signer.Attempt{ID: attempt, Pod: v.Pod},
		Volume:   v.ID,
		Issuer:   v.Issuer,
		CSR:      csr,
		Duration: v.Duration,
		Usages:   v.Usages,
		IsCA:     v.IsCA,

		Annotations: v.Annotations,
	}
}

// EncodeKey encodes the key in PEM. PKCS#1 is for RSA keys alone, as [volume.Parse] ensures.
func EncodeKey(key crypto.Signer, encoding volume.Encoding) ([]byte, error) {
	if rsaKey, ok := key.(*rsa.PrivateKey); ok && encoding == volume.PKCS1 {
		return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)}), nil
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), nil
}

// EncodePending encodes a key and the request that it signed in PEM: what must survive a restart while the signer
// has the request. A signing request can't be made again: its signature is random, and a signer knows a request by
// its bytes.
func EncodePending(key crypto.Signer, csr []byte) ([]byte, error) {
	text, err := EncodeKey(key, volume.PKCS8)
	if err != nil {
		return nil, err
	}
	return append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})...), nil
}

// DecodePending decodes what EncodePending wrote.
func DecodePending(text []byte) (key crypto.Signer, csr []byte, err error) {
	key, rest, err := decodeKey(text)
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(rest)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, nil, errors.New("decode the pending request: no CERTIFICATE REQUEST block")
	}
	return key, block.Bytes, nil
}

// DecodeKey decodes the key of the pair that EncodePair wrote.
func DecodeKey(text []byte) (crypto.Signer, error) {
	key, _, err := decodeKey(text)
	return key, err
}

// decodeKey returns the PKCS#8 key at the beginning of a PEM text, and what follows it.
func decodeKey(text []byte) (crypto.Signer, []byte, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != keyBlock {
		return nil, nil, errNoKey
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("decode the key: %w", err)
	}
	signing, ok := key.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("decode the key: a %T can't sign", key)
	}
	return signing, rest, nil
}
