package chain

import (
	"bytes"
	"crypto/x509"
	"errors"
)

// Checks checks signatures, up to a number of them: whoever sends certificates can have any number of them checked
// against each other. What was checked once is known, and is not checked again. Values come from [NewChecks].
type Checks struct {
	left    int
	results map[link]error
}

// A link is a public key and a certificate that it may have signed.
type link struct{ key, below string }

var errSpent = errors.New("too many signatures would have to be checked")

// NewChecks makes checks of at most so many signatures.
func NewChecks(most int) *Checks { return &Checks{left: most, results: map[link]error{}} }

// Issued reports whether a certificate is the issuer of another by names, key identifiers and the signature. Where
// that can't be checked, as one of the two can't be parsed or crypto/x509 does not know or trust the algorithm of the
// signature, names and key identifiers decide. When no check is left nothing is an issuer.
func (k *Checks) Issued(above, below Certificate) bool {
	if !above.MayIssue(below) {
		return false
	}
	if above.parsed == nil || below.parsed == nil || below.parsed.SignatureAlgorithm == x509.UnknownSignatureAlgorithm {
		return true
	}
	err := k.check(above, below)
	return err == nil || errors.As(err, new(x509.InsecureAlgorithmError))
}

// signed reports whether the key of one certificate signed the other, as far as checks are left.
func (k *Checks) signed(above, below Certificate) bool {
	return above.parsed != nil && below.parsed != nil && above.MayIssue(below) && k.check(above, below) == nil
}

// selfSigned is [Certificate.SelfSigned], as far as checks are left.
func (k *Checks) selfSigned(c Certificate) bool {
	if !c.SelfIssued() || c.parsed == nil {
		return c.SelfIssued()
	}
	return rootSignature(k.check(c, c))
}

// check checks the signature of one certificate with the key of another. Both are parsed.
func (k *Checks) check(above, below Certificate) error {
	this := link{string(above.parsed.RawSubjectPublicKeyInfo), string(below.raw)}
	if err, known := k.results[this]; known {
		return err
	}
	err := above.bounded()
	if err == nil {
		if !k.take(1) {
			return errSpent
		}
		err = below.checkSignature(above.parsed)
	}
	k.results[this] = err
	return err
}

// take reports whether so many checks are left, which then are used.
func (k *Checks) take(n int) bool {
	if n > k.left {
		return false
	}
	k.left -= n
	return true
}

// cost returns how many signatures crypto/x509 may check to verify a path: it goes by names.
func (p path) cost() (n int) {
	for i, below := range p {
		for j, above := range p {
			if i != j && bytes.Equal(above.subject, below.issuer) {
				n++
			}
		}
	}
	return n
}
