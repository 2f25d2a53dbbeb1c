package request_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"testing"

	"github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

func FuzzCheck(f *testing.F) {
	key := newKey(f)
	good := certificate(f, key, nil)
	f.Add(good, good)
	f.Add([]byte{}, []byte("-----BEGIN CERTIFICATE-----\n"))
	f.Add(append([]byte("subject=web\n"), good...), []byte{})
	f.Add(certificate(f, key, func(c *x509.Certificate) { c.NotAfter = now }), good)
	f.Add(certificate(f, newKey(f), nil), good)
	v := web()
	f.Fuzz(func(t *testing.T, chain, ca []byte) {
		pair, err := request.Check(v, request.Pair{}, key, signer.Issued{Chain: chain, CA: ca}, now)
		if err == nil && (!key.PublicKey.Equal(pair.Chain.Leaf().PublicKey) || !pair.Chain.End().After(now)) {
			t.Error("accepted what is not ours or over")
		}
		if err != nil && (pair.Key != nil || err.Error() == "") {
			t.Errorf("a pair with an error: %v", err)
		}
	})
}

// keys are one of each kind, but for an RSA key: to make one takes too long.
func keys(f *testing.F) (keys []crypto.Signer) {
	for _, k := range []spec.Key{{Algorithm: spec.ECDSA, Size: 256}, {Algorithm: spec.ECDSA, Size: 521}, {Algorithm: spec.Ed25519}} {
		key, err := request.NewKey(k)
		if err != nil {
			f.Fatal(err)
		}
		keys = append(keys, key)
	}
	return keys
}

// FuzzDecodePending: what comes out of a damaged file is a key and a request that can be written again, or an error.
func FuzzDecodePending(f *testing.F) {
	for _, key := range keys(f) {
		csr, err := web().CSR(key)
		if err != nil {
			f.Fatal(err)
		}
		text, err := request.EncodePending(key, csr)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
		f.Add(text[:len(text)-30])
		f.Add(bytes.Replace(text, []byte("CERTIFICATE REQUEST"), []byte("CERTIFICATE"), 2))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		key, csr, err := request.DecodePending(text)
		if err != nil {
			if key != nil || csr != nil {
				t.Errorf("a key with an error: %v", err)
			}
			return
		}
		again, err := request.EncodePending(key, csr)
		if err != nil {
			t.Fatal(err)
		}
		key2, csr2, err := request.DecodePending(again)
		if err != nil || !same(key, key2) || !bytes.Equal(csr, csr2) {
			t.Errorf("it came back otherwise: %v", err)
		}
	})
}

// FuzzDecodePair: a leaf carries the key before it.
func FuzzDecodePair(f *testing.F) {
	for _, key := range keys(f) {
		text, err := request.EncodeKey(key, spec.PKCS8)
		if err != nil {
			f.Fatal(err)
		}
		text = append(text, certificate(f, key, nil)...)
		f.Add(text)
		f.Add(text[:len(text)-30])
		f.Add(append(text, text...))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		pair, err := request.DecodePair(text, now)
		if err != nil {
			return
		}
		key, err := request.DecodeKey(text)
		if err != nil || !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(pair.Chain.Leaf().PublicKey) {
			t.Errorf("a leaf of another key: %v", err)
		}
	})
}

func same(a, b crypto.Signer) bool {
	return a.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(b.Public())
}
