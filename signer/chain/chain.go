package chain

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Chain is a certificate with what its issuer sent along, and the path that this makes. Values come from [New], and
// always have a leaf.
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
// Of several paths the one counts that ends last, among those that hold now, if any does. CA certificates that did
// not sign anything of the path never stop a chain. That no path holds is no error of New: see [Chain.Verified].
func New(certificates, ca Bundle, key crypto.PublicKey, now time.Time) (Chain, error) {
	certificates = Unite(certificates)
	i := slices.IndexFunc(certificates, func(c Certificate) bool { return c.carries(key) })
	if i < 0 {
		return Chain{}, noLeaf(certificates)
	}
	if n := certificates.Size(); n > MaxChain {
		return Chain{}, fmt.Errorf("the certificate chain has %d bytes of PEM: the limit is %d", n, MaxChain)
	}
	c := Chain{leaf: certificates[i].parsed}
	others := slices.Delete(slices.Clone(certificates), i, i+1)
	c.problems = Unite(others, ca).Unparsed()
	c.find(others, ca, now)
	c.sent = c.order(others)
	return c, nil
}

func noLeaf(certificates Bundle) error {
	err := errors.New("the certificate is for another key than ours")
	if unread := certificates.unread(); len(unread) > 0 {
		err = fmt.Errorf("%w, or it is this one, which can't be parsed: %s: %w", err, unread[0], unread[0].problem)
	}
	return err
}

// find settles on a path. The leaf alone is the path where none holds.
func (c *Chain) find(others, ca Bundle, now time.Time) {
	g := graph{leaf: Of(c.leaf), others: others, ca: ca, checks: NewChecks(maxChecks)}
	holding, err := g.holding(now)
	if err != nil {
		if signers := g.signers(); len(signers) < len(ca) {
			g.ca = signers
			holding, err = g.holding(now)
		}
	}
	if err == nil && !slices.ContainsFunc(holding, g.anchored) && len(others.unread()) == 0 {
		err = c.leftOver(holding[0], g.unreached())
	}
	if err != nil {
		c.path, c.err = path{g.leaf}, err
		return
	}
	c.path = holding[0]
	above := func(p path) bool { return slices.ContainsFunc(p, ca.Has) }
	if len(ca) > 0 && len(ca.unread()) == 0 && !slices.ContainsFunc(holding, above) {
		const format = "the issuer's CA %s is not above the certificate: peers that trust it alone refuse it"
		c.problems = append(c.problems, fmt.Sprintf(format, ca[0]))
	}
}

// leftOver looks at what came along and is on no path, where no path ends with a root. Without the leaf's own issuer
// the chain is broken. Above that peers find the way themselves: what is left over is a problem alone. It may be
// another CA of the same root, which peers pass over (RFC 8446, section 4.4.2), or show that one is missing.
func (c *Chain) leftOver(p path, lost Bundle) error {
	if len(lost) == 0 {
		return nil
	}
	const format = "the issuer of %s is missing, and %s did not sign it"
	if len(p) == 1 {
		return fmt.Errorf("the certificate chain is broken: "+format, p.name(p.top()), lost[0])
	}
	c.problems = append(c.problems, fmt.Sprintf(format+": peers that lack it refuse the certificate", p.top(), lost[0]))
	return nil
}

// order returns what a pod shows its peers: the leaf, the path, then what is not on it, such as the way to another
// root. TLS before version 1.3 demands that each certificate is followed by its issuer's (RFC 5246, section 7.4.2).
func (c *Chain) order(others Bundle) Bundle {
	sent := Bundle{Of(c.leaf)}
	for _, one := range c.path[1:] {
		if others.Has(one) {
			sent = append(sent, one)
		}
	}
	return Unite(sent, others)
}

// Leaf returns the certificate itself.
func (c Chain) Leaf() *x509.Certificate { return c.leaf }

// Certificates returns what is shown to peers: the leaf, then each issuer of the path, then the others that came
// along.
func (c Chain) Certificates() Bundle { return c.sent }

// Verified returns why peers would refuse the chain at any time: a signature, a constraint, or validities that have
// no moment in common. It says nothing of the time now: see [Chain.Begin] and [Chain.End].
func (c Chain) Verified() error { return c.err }

// Begin returns when the last certificate of the path becomes valid.
func (c Chain) Begin() time.Time { return c.path.begin() }

// End returns when the first certificate of the path ends: from then on peers refuse the chain.
func (c Chain) End() time.Time { return c.path.end() }

// EndsWith returns the certificate of the path that ends first.
func (c Chain) EndsWith() Certificate { return c.path.endsWith() }

// Problems returns, in words, what did not hold and does not stop the chain.
func (c Chain) Problems() []string { return slices.Clone(c.problems) }

// Allows reports whether the chain may be used so: a certificate without extended key usages may be used in every
// way, and each one of the path has to allow it (crypto/x509 VerifyOptions.KeyUsages).
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
