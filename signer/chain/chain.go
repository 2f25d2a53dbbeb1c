package chain

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Chain is a certificate with the others that its issuer sent, and the path through them. Values come from [New],
// and always have a leaf.
type Chain struct {
	leaf     *x509.Certificate
	sent     Bundle
	path     path
	err      error
	problems []string
}

// New builds the chain of the certificate that is for the key, from what an issuer sent with it and from its CA
// certificates, in any order.
//
// Of several valid paths it selects the one that ends last. CA certificates that signed nothing of the path never
// make a chain invalid. That no path is valid is no error of New: see [Chain.Verified].
func New(certificates, ca Bundle, key crypto.PublicKey, now time.Time) (Chain, error) {
	certificates = Unite(certificates)
	i := slices.IndexFunc(certificates, func(c Certificate) bool { return c.isFor(key) })
	if i < 0 {
		return Chain{}, noLeaf(certificates)
	}
	if n := certificates.Size(); n > MaxChain {
		return Chain{}, fmt.Errorf("the certificate chain has %d bytes of PEM: the limit is %d", n, MaxChain)
	}
	c := Chain{leaf: certificates[i].parsed}
	others := slices.Delete(slices.Clone(certificates), i, i+1)
	c.problems = Unite(others, ca).Unparsed()
	c.findPath(others, ca, now)
	c.sent = c.order(others)
	return c, nil
}

// noLeaf returns the error of an answer without a certificate for the key.
func noLeaf(certificates Bundle) error {
	err := errors.New("the certificate is for another key than ours")
	if unread := certificates.unparsed(); len(unread) > 0 {
		err = fmt.Errorf("%w, or it is this one, which can't be parsed: %s: %w", err, unread[0], unread[0].problem)
	}
	return err
}

// findPath selects the path. If none is valid, it is the leaf alone.
func (c *Chain) findPath(others, ca Bundle, now time.Time) {
	g := graph{leaf: Of(c.leaf), others: others, ca: ca, checks: NewChecks(MaxChecks)}
	valid, err := g.validPaths(now)
	if err != nil {
		if signers := g.signers(); len(signers) < len(ca) {
			g.ca = signers
			valid, err = g.validPaths(now)
		}
	}
	if err == nil && !slices.ContainsFunc(valid, g.anchored) && len(others.unparsed()) == 0 {
		err = c.checkUnreached(valid[0], g.unreached())
	}
	if err != nil {
		c.path, c.err = path{g.leaf}, err
		return
	}
	c.path = valid[0]
	reachesCA := func(p path) bool { return slices.ContainsFunc(p, ca.Has) }
	if len(ca) > 0 && len(ca.unparsed()) == 0 && !slices.ContainsFunc(valid, reachesCA) {
		const format = "the issuer's CA %s is not above the certificate: peers that trust it alone refuse it"
		c.problems = append(c.problems, fmt.Sprintf(format, ca[0]))
	}
}

// checkUnreached handles certificates that are on no path, where no path ends with a root. Without the leaf's own
// issuer the chain is broken. Beyond that peers may have the missing ones: it only reports a problem. The
// certificates may be of another CA of the same root, which peers ignore (RFC 8446, section 4.4.2), or show that one
// is missing.
func (c *Chain) checkUnreached(p path, unreached Bundle) error {
	if len(unreached) == 0 {
		return nil
	}
	const format = "the issuer of %s is missing, and %s did not sign it"
	if len(p) == 1 {
		return fmt.Errorf("the certificate chain is broken: "+format, p.name(p.top()), unreached[0])
	}
	problem := fmt.Sprintf(format+": peers that lack it refuse the certificate", p.top(), unreached[0])
	c.problems = append(c.problems, problem)
	return nil
}

// order returns the certificates that a pod sends its peers: the leaf, the path, then those that are not on it, such
// as the path to another root. TLS before version 1.3 requires that each certificate is followed by its issuer's (RFC
// 5246, section 7.4.2).
func (c *Chain) order(others Bundle) Bundle {
	sent := Bundle{Of(c.leaf)}
	for _, one := range c.path[1:] {
		if others.Has(one) {
			sent = append(sent, one)
		}
	}
	return Unite(sent, others)
}

// Leaf returns the certificate for the key.
func (c Chain) Leaf() *x509.Certificate { return c.leaf }

// Certificates returns what is sent to peers: the leaf, then each issuer of the path, then the others that the issuer
// sent.
func (c Chain) Certificates() Bundle { return c.sent }

// Verified returns why peers would refuse the chain at any time: a signature, a constraint, or validities that do not
// overlap. It does not depend on the current time: see [Chain.Begin] and [Chain.End].
func (c Chain) Verified() error { return c.err }

// Begin returns when the last certificate of the path becomes valid.
func (c Chain) Begin() time.Time { return c.path.begin() }

// End returns when the first certificate of the path ends: from then on peers refuse the chain.
func (c Chain) End() time.Time { return c.path.end() }

// EndsWith returns the certificate of the path that ends first.
func (c Chain) EndsWith() Certificate { return c.path.endsWith() }

// Problems returns what is wrong but does not make the chain invalid, as messages.
func (c Chain) Problems() []string { return slices.Clone(c.problems) }

// Allows reports whether all certificates of the path allow an extended key usage: one without extended key usages
// allows all (crypto/x509 VerifyOptions.KeyUsages).
func (c Chain) Allows(usage x509.ExtKeyUsage) bool {
	for _, one := range c.path {
		given := one.parsed.ExtKeyUsage
		limited := len(given)+len(one.parsed.UnknownExtKeyUsage) > 0
		if limited && !slices.Contains(given, usage) && !slices.Contains(given, x509.ExtKeyUsageAny) {
			return false
		}
	}
	return true
}
