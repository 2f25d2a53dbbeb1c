// Package request makes the key of a volume, and checks the answer of a signer against what the volume asks for.
//
// It is pure but for the random source.
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
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// keyBlock is the type of a PKCS#8 key's PEM block (RFC 7468, section 10).
const keyBlock = "PRIVATE KEY"

var errNoKey = errors.New("decode the key: no PRIVATE KEY block")

// NewAttempt returns the id of a new attempt: 26 characters of [a-z2-7], 130 random bits.
func NewAttempt() string { return strings.ToLower(rand.Text()) }

// NewKey makes a private key of the kind that the volume asks for.
func NewKey(k spec.Key) (crypto.Signer, error) {
	switch k.Algorithm {
	case spec.RSA:
		return rsa.GenerateKey(rand.Reader, k.Size)
	case spec.Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case spec.ECDSA:
		return ecdsa.GenerateKey(curve(k.Size), rand.Reader)
	}
	return nil, fmt.Errorf("make a key: unknown algorithm %q", k.Algorithm)
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

// New returns the request of an attempt to the signer.
func New(v volume.Volume, attempt string, csr []byte) signer.Request {
	asking := v.Request(attempt, csr)
	asking.Volume = v.ID
	return asking
}

// EncodeKey encodes the key in PEM. PKCS#1 is for RSA keys alone, as [volume.Parse] ensures.
func EncodeKey(key crypto.Signer, encoding spec.Encoding) ([]byte, error) {
	if rsaKey, ok := key.(*rsa.PrivateKey); ok && encoding == spec.PKCS1 {
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
	text, err := EncodeKey(key, spec.PKCS8)
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
