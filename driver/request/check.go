package request

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// MaxSkew is how far ahead of the node's clock a certificate may begin: the clocks of signer and node differ.
const MaxSkew = 5 * time.Minute

// maxAnswer is the longest PEM text that is looked at. A chain of RSA 8192 certificates has some 5 KiB each; the API server takes objects of up to 1.5 MiB.
const maxAnswer = 256 << 10

// A Pair is a key with the certificate that was checked against it.
type Pair struct {
	Key   crypto.Signer
	Leaf  *x509.Certificate
	Chain []byte // PEM, the leaf first.
	CA    []byte // PEM; may be empty.
}

// NotYetValid is the error of a certificate that begins more than [MaxSkew] ahead. It is worth waiting for: asking again brings another one like it.
type NotYetValid struct {
	NotBefore time.Time
}

// Error names the time.
func (e *NotYetValid) Error() string {
	return fmt.Sprintf("the certificate is not valid before %s: the clocks of the signer and of this node differ", e.NotBefore.UTC().Format(time.RFC3339))
}

// Check is the pair that a signer's answer makes with our key. What does not carry our key, lacks a name that the volume
// asked for, is over or is no certificate at all is an error, which says what was wrong with it.
func Check(v volume.Volume, key crypto.Signer, issued signer.Issued, now time.Time) (Pair, error) {
	chain, err := certificates(issued.Chain)
	if err != nil {
		return Pair{}, fmt.Errorf("the certificate chain %w", err)
	}
	leaf := chain[0]
	if !carries(leaf, key) {
		return Pair{}, errors.New("the certificate is for another key than ours")
	}
	if v.IsCA && !leaf.IsCA {
		return Pair{}, errors.New("the certificate is not that of a CA, which was asked for")
	}
	if err := covers(leaf, v); err != nil {
		return Pair{}, err
	}
	ca, err := authorities(issued.CA)
	if err != nil {
		return Pair{}, err
	}
	if err := validAt(leaf, now); err != nil {
		return Pair{}, err
	}
	return Pair{Key: key, Leaf: leaf, Chain: encode(chain), CA: ca}, nil
}

// EncodePair is the pair as one text in PEM: PKCS#8 key, then the chain, leaf first.
func EncodePair(p Pair) ([]byte, error) {
	text, err := EncodeKey(p.Key, volume.PKCS8)
	if err != nil {
		return nil, err
	}
	return append(text, p.Chain...), nil
}

// DecodePair is the pair that EncodePair wrote, if its leaf carries the key. It has no CA.
func DecodePair(text []byte) (Pair, error) {
	key, rest, err := decodeKey(text)
	if err != nil {
		return Pair{}, err
	}
	chain, err := certificates(rest)
	if err != nil {
		return Pair{}, fmt.Errorf("the certificate chain %w", err)
	}
	if !carries(chain[0], key) {
		return Pair{}, errors.New("the certificate is for another key")
	}
	return Pair{Key: key, Leaf: chain[0], Chain: encode(chain)}, nil
}

// DecodeLeaf is the leaf of that pair.
func DecodeLeaf(text []byte) (*x509.Certificate, error) {
	pair, err := DecodePair(text)
	return pair.Leaf, err
}

// carries reports whether the certificate's public key is ours.
func carries(leaf *x509.Certificate, key crypto.Signer) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(leaf.PublicKey)
}

// validAt checks the time alone.
func validAt(leaf *x509.Certificate, now time.Time) error {
	switch {
	case !leaf.NotAfter.After(now):
		return fmt.Errorf("the certificate expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	case leaf.NotBefore.After(now.Add(MaxSkew)):
		return &NotYetValid{NotBefore: leaf.NotBefore}
	}
	return nil
}

// certificates are all blocks of a PEM text, at least one.
func certificates(text []byte) ([]*x509.Certificate, error) {
	if len(text) > maxAnswer {
		return nil, fmt.Errorf("is %d bytes long: more than %d", len(text), maxAnswer)
	}
	var found []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("has a PEM block of type %q among its certificates", block.Type)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("has a block that is no certificate: %w", err)
		}
		found = append(found, certificate)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("has no certificate in its %d bytes", len(text))
	}
	return found, nil
}

// authorities are an issuer's CA certificates, which it need not tell.
func authorities(text []byte) ([]byte, error) {
	if len(text) == 0 {
		return nil, nil
	}
	found, err := certificates(text)
	if err != nil {
		return nil, fmt.Errorf("the issuer's CA %w", err)
	}
	return encode(found), nil
}

// encode writes certificates as PEM without whatever stood between them.
func encode(chain []*x509.Certificate) (text []byte) {
	for _, c := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text
}

// covers demands every name that was asked for. More names are the issuer's choice.
// A common name may be left out where a DNS name says the same: public CAs do (CA/Browser Forum Baseline Requirements, 7.1.4.3).
func covers(leaf *x509.Certificate, v volume.Volume) error {
	for _, name := range v.DNSNames {
		if !named(leaf, name) {
			return lacks("DNS name", name)
		}
	}
	for _, ip := range v.IPs {
		if !slices.ContainsFunc(leaf.IPAddresses, ip.Equal) {
			return lacks("IP address", ip.String())
		}
	}
	for _, uri := range v.URIs {
		if !slices.ContainsFunc(leaf.URIs, func(u *url.URL) bool { return u.String() == uri.String() }) {
			return lacks("URI", uri.String())
		}
	}
	if cn := v.Subject.CommonName; v.RawSubject == nil && cn != "" && leaf.Subject.CommonName != cn && !named(leaf, cn) {
		return lacks("common name", cn)
	}
	return nil
}

// named reports whether the certificate has the DNS name; case does not count (RFC 4343).
func named(leaf *x509.Certificate, name string) bool {
	return slices.ContainsFunc(leaf.DNSNames, func(n string) bool { return strings.EqualFold(n, name) })
}

func lacks(what, name string) error {
	return fmt.Errorf("the certificate lacks the %s %q that was asked for", what, name)
}
