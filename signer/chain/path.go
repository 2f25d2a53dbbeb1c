package chain

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// The limits of the search: who sends certificates can give any number of them the same name.
const (
	maxDepth    = 10 // Certificates of a path.
	maxPaths    = 64 // By names and key identifiers.
	maxVerified = 16 // Of those, the best.
	reserved    = 32 // Of MaxChecks, for the paths of the CA certificates that signed something.
)

// MaxChecks is how many signatures are checked for one answer.
const MaxChecks = 128

// A path leads from the leaf, which is first, to its last known issuer. All of it is parsed.
type path []Certificate

// top returns the last issuer.
func (p path) top() Certificate { return p[len(p)-1] }

// begin returns when the last certificate becomes valid.
func (p path) begin() time.Time { return p.beginsWith().parsed.NotBefore }

// end returns when the first certificate ends.
func (p path) end() time.Time { return p.endsWith().parsed.NotAfter }

// beginsWith returns the certificate that becomes valid last.
func (p path) beginsWith() Certificate {
	return slices.MaxFunc(p, func(a, b Certificate) int { return a.parsed.NotBefore.Compare(b.parsed.NotBefore) })
}

// endsWith returns the certificate that ends first.
func (p path) endsWith() Certificate {
	return slices.MinFunc(p, func(a, b Certificate) int { return a.parsed.NotAfter.Compare(b.parsed.NotAfter) })
}

// name returns the name of a certificate for messages. The leaf may have no subject.
func (p path) name(c Certificate) string {
	if c.Equal(p[0]) {
		return "the certificate"
	}
	return c.String()
}

// Stamp formats a time for messages.
func Stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// EndsAt returns when something ends or ended, as seen now, for messages.
func EndsAt(end, now time.Time) string {
	if end.After(now) {
		return "ends at " + Stamp(end)
	}
	return "ended at " + Stamp(end)
}

// validAt reports whether all certificates are valid at a time.
func (p path) validAt(t time.Time) bool { return !p.begin().After(t) && p.end().After(t) }

// verify checks signatures and constraints, at a time when all certificates of the path are valid.
func (p path) verify() error {
	if first, last := p.endsWith(), p.beginsWith(); !last.parsed.NotBefore.Before(first.parsed.NotAfter) {
		return fmt.Errorf("the certificate chain does not hold: %s expired at %s, before %s begins at %s",
			p.name(first), Stamp(p.end()), p.name(last), Stamp(p.begin()))
	}
	if len(p) == 1 {
		return nil
	}
	leaf := *p[0].parsed
	usages := slices.Clone(leaf.ExtKeyUsage)
	if len(usages) == 0 {
		usages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	}
	leaf.UnhandledCriticalExtensions = nil // Peers may know more kinds of names, and extensions, than crypto/x509.
	options := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: p.begin(), KeyUsages: usages,
	}
	options.Roots.AddCert(p.top().parsed)
	for _, c := range p[1 : len(p)-1] {
		options.Intermediates.AddCert(c.parsed)
	}
	if _, err := leaf.Verify(options); err != nil {
		var invalid x509.CertificateInvalidError
		if errors.As(err, &invalid) && invalid.Cert != nil { // Whose message does not say which one it is.
			err = fmt.Errorf("%s: %w", p.name(Of(invalid.Cert)), err)
		}
		return fmt.Errorf("the certificate chain does not hold: %w", truncate(err))
	}
	return nil
}

// A graph holds the certificates among which paths are searched.
type graph struct {
	leaf       Certificate
	others, ca Bundle
	checks     *Checks
}

// validPaths returns the paths that can be verified, the best first: one that is valid now before others, then the one
// that ends last, then the shortest. The error is that of the best, if none can be verified.
func (g graph) validPaths(now time.Time) (valid []path, err error) {
	all := g.paths()
	rank := func(p path) int {
		if p.validAt(now) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(all, func(a, b path) int {
		return cmp.Or(rank(a)-rank(b), b.end().Compare(a.end()), len(a)-len(b))
	})
	for _, p := range all[:min(len(all), maxVerified)] {
		if !g.checks.spend(p.cost()) {
			err = cmp.Or(err, fmt.Errorf("the certificate chain does not hold: %w", errSpent))
			continue
		}
		if e := p.verify(); e != nil {
			err = cmp.Or(err, e)
			continue
		}
		valid = append(valid, p)
	}
	if len(valid) > 0 {
		return valid, nil
	}
	return nil, err
}

// paths returns the paths by names and key identifiers. A path ends with a root, with a CA certificate, with one whose
// signature crypto/x509 can't check, or where no issuer is known.
func (g graph) paths() (all []path) {
	known := Unite(g.others, g.ca)
	var extend func(p path)
	extend = func(p path) {
		if len(all) == maxPaths {
			return
		}
		top := p.top()
		over := g.complete(p) || len(p) == maxDepth
		alone := true
		for _, c := range known {
			if !over && c.parsed != nil && c.MayIssue(top) && !slices.ContainsFunc(p, c.Equal) {
				alone = false
				extend(append(slices.Clone(p), c))
			}
		}
		if over || alone || len(p) > 1 && g.ca.Has(top) {
			all = append(all, p)
		}
	}
	extend(path{g.leaf})
	return all[:min(len(all), maxPaths)]
}

// complete reports whether the path is not to be extended: its top is a root, or has a signature that crypto/x509
// can't check. A leaf may have the name of its issuer.
func (g graph) complete(p path) bool {
	top := p.top()
	if top.parsed.SignatureAlgorithm == x509.UnknownSignatureAlgorithm {
		return true
	}
	byName := len(p) > 1 && len(top.parsed.SubjectKeyId) > 0 && top.MayIssue(top)
	return top.SelfIssued() && (byName || g.checks.SelfSigned(top))
}

// anchored reports whether the path leads to a root or to a CA certificate of the issuer.
func (g graph) anchored(p path) bool {
	top := p.top()
	return g.ca.Has(top) || g.checks.SelfSigned(top)
}

// unreached returns the certificates that the issuer sent and that are on no path.
func (g graph) unreached() Bundle {
	on := Bundle{}
	for _, p := range g.paths() {
		on = append(on, p...)
	}
	return slices.DeleteFunc(slices.Clone(g.others), on.Has)
}

// signers returns the CA certificates that signed another certificate, or have its issuer's key identifier: the rest
// have only the name of an issuer. The leaf comes first: once few checks are left, no more signatures are checked.
func (g graph) signers() Bundle {
	found := make([]bool, len(g.ca))
	for _, below := range Unite(Bundle{g.leaf}, g.others, g.ca) {
		for i, ca := range g.ca {
			if found[i] || ca.Equal(below) {
				continue
			}
			found[i] = ca.mustIssue(below) || g.checks.left > reserved && g.checks.signed(ca, below)
		}
	}
	var signers Bundle
	for i, ca := range g.ca {
		if found[i] {
			signers = append(signers, ca)
		}
	}
	return signers
}
