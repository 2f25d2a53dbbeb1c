package chain

import (
	"bytes"
	"crypto/x509"
	"errors"
)

// Checks checks a limited number of signatures: who sends certificates could make any number of checks necessary. It
// remembers results, and checks no signature twice. Values come from [NewChecks].
type Checks struct {
	left    int
	results map[link]error
}

// A link is a public key and a certificate that it may have signed.
type link struct{ key, issued string }

var errSpent = errors.New("too many signatures would have to be checked")

// NewChecks makes a Checks with a limit.
func NewChecks(limit int) *Checks { return &Checks{left: limit, results: map[link]error{}} }

// Checks makes a Checks with a limit that knows the signatures of the chain's path.
func (c Chain) Checks(limit int) *Checks {
	k := NewChecks(limit)
	for i, issuer := range c.path[1:] {
		k.results[linkOf(issuer, c.path[i])] = nil
	}
	return k
}

// linkOf returns the link of two certificates that are parsed.
func linkOf(issuer, issued Certificate) link {
	return link{string(issuer.parsed.RawSubjectPublicKeyInfo), string(issued.raw)}
}

// Issued reports whether a certificate is the issuer of another by names, key identifiers and the signature. If the
// signature can't be checked, since one of the two can't be parsed or crypto/x509 does not support its algorithm,
// names and key identifiers decide. When no check is left it returns false.
func (k *Checks) Issued(issuer, issued Certificate) bool {
	if !issuer.MayIssue(issued) {
		return false
	}
	if issuer.parsed == nil || issued.parsed == nil ||
		issued.parsed.SignatureAlgorithm == x509.UnknownSignatureAlgorithm {
		return true
	}
	err := k.check(issuer, issued)
	return err == nil || errors.As(err, new(x509.InsecureAlgorithmError))
}

// signed reports whether the key of one certificate signed the other; false when no check is left.
func (k *Checks) signed(issuer, issued Certificate) bool {
	return issuer.parsed != nil && issued.parsed != nil && issuer.MayIssue(issued) && k.check(issuer, issued) == nil
}

// SelfSigned reports whether a certificate is a root: it names itself as its issuer, and its own key signed it. Where
// the signature can't be checked, as those of old roots with SHA-1, the names decide. It returns false when no check is
// left.
func (k *Checks) SelfSigned(c Certificate) bool {
	if !c.SelfIssued() || c.parsed == nil {
		return c.SelfIssued()
	}
	return rootSignature(k.check(c, c))
}

// check checks the signature of one certificate with the key of another. Both are parsed.
func (k *Checks) check(issuer, issued Certificate) error {
	this := linkOf(issuer, issued)
	if err, known := k.results[this]; known {
		return err
	}
	err := issuer.checkKeySize()
	if err == nil {
		if !k.spend(1) {
			return errSpent
		}
		err = issued.checkSignature(issuer.parsed)
	}
	k.results[this] = err
	return err
}

// spend uses n checks; it reports false, and uses none, if fewer are left.
func (k *Checks) spend(n int) bool {
	if n > k.left {
		return false
	}
	k.left -= n
	return true
}

// cost returns how many signatures crypto/x509 may check to verify a path: it selects candidates by names.
func (p path) cost() (n int) {
	for i, issued := range p {
		for j, issuer := range p {
			if i != j && bytes.Equal(issuer.subject, issued.issuer) {
				n++
			}
		}
	}
	return n
}
