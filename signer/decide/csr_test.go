package decide

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/signer/spec"
)

// A request is a PKCS#10 certification request (RFC 2986), with room for what does not belong there.
type pkcs10 struct {
	Body      asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
	More      asn1.RawValue `asn1:"optional"`
}

func marshal(t *testing.T, value any) []byte {
	t.Helper()
	der, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// Each byte of a signing request means something: none is a place where a node could hide what nobody looks at.
func TestEveryByteOfASigningRequest(t *testing.T) {
	wanted := spec.Spec{Key: spec.Key{Algorithm: spec.ECDSA, Size: 256}, Names: spec.Names{DNSNames: []string{"web.shop.svc"}}}
	hidden := asn1.RawValue{FullBytes: marshal(t, []byte("hidden"))}
	for name, change := range map[string]func(*pkcs10){
		"":                            func(*pkcs10) {},
		"behind the signature":        func(r *pkcs10) { r.More = hidden },
		"parameters of the algorithm": func(r *pkcs10) { r.Algorithm.Parameters = hidden },
		"null for parameters":         func(r *pkcs10) { r.Algorithm.Parameters = asn1.NullRawValue },
		"behind the parameters": func(r *pkcs10) {
			r.Algorithm.Parameters = asn1.RawValue{FullBytes: append(marshal(t, []byte("hidden")), hidden.FullBytes...)}
		},
		"unused bits of the signature": func(r *pkcs10) { // crypto/x509 shifts them away.
			shifted := make([]byte, len(r.Signature.Bytes)+1)
			for i, b := range r.Signature.Bytes {
				shifted[i] |= b >> 1
				shifted[i+1] = b << 7
			}
			r.Signature = asn1.BitString{Bytes: shifted, BitLength: len(r.Signature.Bytes)*8 + 1}
		},
	} {
		var r pkcs10
		if _, err := asn1.Unmarshal(csr(t, wanted), &r); err != nil {
			t.Fatal(err)
		}
		change(&r)
		problems := CSR(marshal(t, r), wanted)
		if (len(problems) == 0) != (name == "") {
			t.Errorf("%q: %v", name, problems)
		}
	}
}

// The public key is written in one way alone.
func TestEveryByteOfAPublicKey(t *testing.T) {
	wanted := spec.Spec{Key: spec.Key{Algorithm: spec.ECDSA, Size: 256}, Names: spec.Names{DNSNames: []string{"web.shop.svc"}}}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := wanted.CSR(key)
	if err != nil {
		t.Fatal(err)
	}
	var r pkcs10
	var b body
	if _, err := asn1.Unmarshal(der, &r); err != nil {
		t.Fatal(err)
	}
	if _, err := asn1.Unmarshal(r.Body.FullBytes, &b); err != nil {
		t.Fatal(err)
	}
	var public struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
		More      asn1.RawValue `asn1:"optional"`
	}
	if _, err := asn1.Unmarshal(b.PublicKey.FullBytes, &public); err != nil {
		t.Fatal(err)
	}
	public.More = asn1.RawValue{FullBytes: marshal(t, []byte("hidden"))}
	b.Raw, b.PublicKey = nil, asn1.RawValue{FullBytes: marshal(t, public)}
	r.Body = asn1.RawValue{FullBytes: marshal(t, b)}
	sum := sha256.Sum256(r.Body.FullBytes)
	if r.Signature.Bytes, err = ecdsa.SignASN1(rand.Reader, key, sum[:]); err != nil {
		t.Fatal(err)
	}
	r.Signature.BitLength = 8 * len(r.Signature.Bytes)
	if problems := CSR(marshal(t, r), wanted); len(problems) != 1 || !strings.Contains(problems.Error(), "bytes that mean nothing") {
		t.Errorf("%v", problems)
	}
}

// Node plugins write RSA requests with the parameters that RFC 4055 demands.
func TestAnRSARequestIsWhole(t *testing.T) {
	wanted := spec.Spec{Key: spec.Key{Algorithm: spec.RSA, Size: 2048}}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := wanted.CSR(key)
	if err != nil {
		t.Fatal(err)
	}
	if problems := CSR(der, wanted); len(problems) > 0 {
		t.Error(problems)
	}
}
