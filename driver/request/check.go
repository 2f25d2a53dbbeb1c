package request

import (
	"bytes"
	"cmp"
	"crypto"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/chain"
	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// MaxSkew is how far ahead of the node's clock a certificate may begin: the clocks of signer and node differ.
const MaxSkew = 5 * time.Minute

// A Pair is a key with the chain that was checked against it.
type Pair struct {
	Key    crypto.Signer
	Chain  chain.Chain
	CA     chain.Bundle // May be empty.
	CAText []byte       // What the pod has of CA; nil: its encoding.

	Warnings []Warning // What the pod's author should know of the answer.
}

// A Warning is what an Event says.
type Warning struct {
	Reason, Message string
}

// NotYetValid is the error of a certificate that begins more than [MaxSkew] ahead. The caller should wait for that
// time: asking again brings another one like it.
type NotYetValid struct {
	NotBefore time.Time
}

// ValidFrom returns from when on the certificate is accepted.
func (e *NotYetValid) ValidFrom() time.Time { return e.NotBefore.Add(-MaxSkew) }

// Error returns the message, with the time.
func (e *NotYetValid) Error() string {
	return fmt.Sprintf("the certificate is not valid before %s: the clocks of the signer and of this node differ",
		chain.Stamp(e.NotBefore))
}

// Check makes a pair of our key and a signer's answer. An answer that is not for our key, lacks a name that the
// volume asked for, or would be refused by peers is an error, which says what is wrong with it: peers go by the path
// from the certificate to its issuer's CA, as far as the answer has it. CA certificates that can't be read are left
// out with a warning.
//
// A usage that the pod asked for by name, and that the pair before lacks, too, is a warning: to refuse what the issuer
// never gave would leave the pod without a certificate. The zero Pair is that of a volume that has none.
func Check(v volume.Volume, before Pair, key crypto.Signer, issued signer.Issued, now time.Time) (Pair, error) {
	certificates, err := parseChain(issued.Chain)
	if err != nil {
		return Pair{}, err
	}
	p := Pair{Key: key}
	if p.CA, err = authorities(issued.CA); err != nil {
		p.warn("UnusualChain", fmt.Sprintf("the issuer's CA certificates are left out: %v", err))
	}
	if p.Chain, err = chain.New(certificates, p.CA, key.Public(), now); err != nil {
		return Pair{}, err
	}
	if v.IsCA && !p.Chain.Leaf().IsCA {
		return Pair{}, errors.New("the certificate is not that of a CA, which was asked for")
	}
	if err := cmp.Or(p.covers(v), p.Chain.Verified(), validAt(p.Chain, now), p.serves(v, before, now)); err != nil {
		return Pair{}, err
	}
	for _, problem := range p.Chain.Problems() {
		p.warn("UnusualChain", problem)
	}
	p.lasts(v, now)
	return p, nil
}

func (p *Pair) warn(reason, text string) {
	p.Warnings = append(p.Warnings, Warning{reason, message.Cut(text, message.LongestReason)})
}

// EncodePair writes the pair as one text in PEM: PKCS#8 key, then the chain, leaf first.
func EncodePair(p Pair) ([]byte, error) {
	text, err := EncodeKey(p.Key, spec.PKCS8)
	if err != nil {
		return nil, err
	}
	return append(text, p.Chain.Certificates().Encode()...), nil
}

// DecodePair reads the pair that EncodePair wrote, if its chain has a certificate for the key. It has no CA.
func DecodePair(text []byte, now time.Time) (Pair, error) {
	key, rest, err := decodeKey(text)
	if err != nil {
		return Pair{}, err
	}
	certificates, err := parseChain(rest)
	if err != nil {
		return Pair{}, err
	}
	p := Pair{Key: key}
	p.Chain, err = chain.New(certificates, nil, key.Public(), now)
	return p, err
}

// DecodeChain reads the chain of the pair that EncodePair wrote, and not its key.
func DecodeChain(text []byte, now time.Time) (chain.Chain, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != keyBlock {
		return chain.Chain{}, errNoKey
	}
	certificates, err := parseChain(rest)
	if err != nil {
		return chain.Chain{}, err
	}
	leaf, err := certificates[0].X509()
	if err != nil {
		return chain.Chain{}, fmt.Errorf("read the certificate chain: %w", err)
	}
	return chain.New(certificates, nil, leaf.PublicKey, now)
}

// parseChain parses the certificates of a chain. There is at least one.
func parseChain(text []byte) (chain.Bundle, error) {
	certificates, err := chain.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("read the certificate chain: %w", err)
	}
	return certificates, nil
}

// validAt checks the time alone.
func validAt(c chain.Chain, now time.Time) error {
	switch {
	case !c.Leaf().NotAfter.After(now):
		return fmt.Errorf("the certificate expired at %s", chain.Stamp(c.Leaf().NotAfter))
	case !c.End().After(now):
		return fmt.Errorf("the certificate of its issuer, %s, expired at %s", c.EndsWith(), chain.Stamp(c.End()))
	case c.Begin().After(now.Add(MaxSkew)):
		return &NotYetValid{NotBefore: c.Begin()}
	}
	return nil
}

// authorities reads an issuer's CA certificates, which may be absent.
func authorities(text []byte) (chain.Bundle, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, nil
	}
	found, err := chain.Parse(text)
	return chain.Unite(found), err
}
