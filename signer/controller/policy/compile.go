package policy

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/cel-go/cel"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// A Compiler makes CertificatePolicies ready to be asked. Make one with [NewCompiler].
type Compiler struct {
	standard Policy
	language *cel.Env
}

// NewCompiler makes a compiler for policies beside a standard one, which is for pods that none of them selects.
func NewCompiler(standard Policy) (*Compiler, error) {
	language, err := newEnvironment()
	return &Compiler{standard, language}, err
}

// A Rule is a CertificatePolicy that was made ready. One with a mistake allows nothing to whom it selects.
type Rule struct {
	Name       string
	Generation int64 // Of the CertificatePolicy.

	Err error // All that is wrong with the policy: [problem.List]; nil: nothing.

	own                  Policy // What ownNames is.
	namespaces, accounts []pattern
	isDefault            bool // For pods that no other rule selects.

	ownNames, isCA, wildcards  bool
	dnsNames                   domains
	commonNames, organizations []pattern
	uris                       []uri
	ips                        []netip.Prefix
	annotations                []pattern

	usages                   []signer.Usage
	minDuration, maxDuration time.Duration // 0: as the dialect has it.
	issuers                  []issuer
	keys                     []key
	expressions              []expression
}

// Compile makes a policy ready. It finds all mistakes that the CRD finds, since not every policy comes from an API
// server.
func (c *Compiler) Compile(p v1alpha1.CertificatePolicy) Rule {
	own := Policy{ClusterDomain: c.standard.ClusterDomain}
	r := Rule{Name: p.Name, Generation: p.Generation, isDefault: p.Spec.Default, own: own}
	var problems problem.List
	problems = append(problems, r.choose(p.Spec)...)
	problems = append(problems, r.allow(p.Spec.Allow)...)
	problems = append(problems, r.limit(p.Spec.Limits)...)
	problems = append(problems, r.express(c.language, p.Spec.Expressions)...)
	if len(problems) > 0 {
		r.Err = problems
	}
	return r
}

// choose reads whom the policy selects. One that can't be read selects all: none may have more for a mistake.
func (r *Rule) choose(s v1alpha1.Spec) (problems []error) {
	name := func(text string) (pattern, error) { return parsePattern(text, anything) }
	var accounts []error
	r.namespaces, problems = each("spec.namespaces", s.Namespaces, name)
	r.accounts, accounts = each("spec.serviceAccounts", s.ServiceAccounts, name)
	if problems = append(problems, accounts...); len(problems) > 0 {
		r.namespaces, r.accounts = nil, nil
	}
	if len(s.Namespaces) == 0 {
		problems = append(problems, errors.New("spec.namespaces: is required"))
	}
	return problems
}

func (r *Rule) allow(a v1alpha1.Allow) (problems []error) {
	value := func(text string) (pattern, error) { return parsePattern(text, anything) }
	var more [6][]error
	r.ownNames, r.isCA, r.wildcards = a.OwnNames == nil || *a.OwnNames, a.IsCA, a.Wildcards
	names, wrong := each("spec.allow.dnsNames", a.DNSNames, parseDomain)
	r.dnsNames, more[0] = newDomains(names), wrong
	r.commonNames, more[1] = each("spec.allow.commonNames", a.CommonNames, value)
	r.organizations, more[2] = each("spec.allow.organizations", a.Organizations, value)
	r.ips, more[3] = each("spec.allow.ips", a.IPs, parseRange)
	r.uris, more[4] = each("spec.allow.uris", a.URIs, parseURI)
	r.annotations, more[5] = each("spec.allow.annotations", a.Annotations, value)
	return slices.Concat(more[:]...)
}

func parseRange(text v1alpha1.CIDR) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(string(text))
	if err != nil || prefix != prefix.Masked() || prefix.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is not the CIDR of a range, such as 10.0.0.0/8 or fd00::/8", string(text))
	}
	return prefix, nil
}

func (r *Rule) limit(l v1alpha1.Limits) (problems []error) {
	var more [3][]error
	r.usages, more[0] = each("spec.limits.usages", l.Usages, parseUsage)
	r.issuers, more[1] = each("spec.limits.issuers", l.Issuers, parseIssuer)
	r.keys, more[2] = each("spec.limits.keys", l.Keys, parseKey)
	problems = slices.Concat(more[:]...)
	var wrong [2]error
	r.minDuration, wrong[0] = parseDuration("spec.limits.minDuration", l.MinDuration)
	r.maxDuration, wrong[1] = parseDuration("spec.limits.maxDuration", l.MaxDuration)
	if err := errors.Join(wrong[:]...); err != nil {
		problems = append(problems, err)
	} else if r.maxDuration > 0 && r.minDuration > r.maxDuration {
		problems = append(problems, fmt.Errorf("spec.limits.minDuration: %s is longer than maxDuration, %s",
			r.minDuration, r.maxDuration))
	}
	return problems
}

// parseDuration reads a duration; 0 where there is none.
func parseDuration(field string, d *metav1.Duration) (time.Duration, error) {
	switch {
	case d == nil:
		return 0, nil
	case d.Duration <= 0:
		return 0, fmt.Errorf("%s: %s is not longer than 0s", field, d.Duration)
	}
	return d.Duration, nil
}

func parseUsage(u v1alpha1.Usage) (signer.Usage, error) {
	if !slices.Contains(signer.Usages(), string(u)) {
		return "", fmt.Errorf("%q is not a key usage", string(u))
	}
	return signer.Usage(u), nil
}

// An issuer is patterns of an issuer's name, kind and group.
type issuer struct{ name, kind, group pattern }

func parseIssuer(i v1alpha1.Issuer) (found issuer, err error) {
	var errs [3]error
	found.name, errs[0] = parsePattern(i.Name, anything)
	found.kind, errs[1] = parsePattern(cmp.Or(i.Kind, "Issuer"), anything)
	found.group, errs[2] = parsePattern(cmp.Or(i.Group, "cert-manager.io"), anything)
	return found, cmp.Or(errs[:]...)
}

func (i issuer) String() string { return fmt.Sprintf("%s %s of %s", i.kind, i.name, i.group) }

func (i issuer) covers(is signer.Issuer) bool {
	return i.name.covers(is.Name) && i.kind.covers(is.Kind) && i.group.covers(is.Group)
}

// A key is a kind of keys.
type key v1alpha1.Key

func parseKey(k v1alpha1.Key) (key, error) {
	switch {
	case !slices.Contains([]spec.Algorithm{spec.RSA, spec.ECDSA, spec.Ed25519}, spec.Algorithm(k.Algorithm)):
		return key{}, fmt.Errorf("algorithm %q is not known: there are RSA, ECDSA and Ed25519", k.Algorithm)
	case k.MinSize < 0 || k.MinSize > 0 && k.Algorithm == string(spec.Ed25519):
		return key{}, fmt.Errorf("there are no keys of %s with at least %d bits", k.Algorithm, k.MinSize)
	}
	return key(k), nil
}

func (k key) String() string {
	if k.MinSize == 0 {
		return k.Algorithm
	}
	return fmt.Sprintf("%s of at least %d bits", k.Algorithm, k.MinSize)
}

func (k key) covers(is spec.Key) bool {
	return spec.Algorithm(k.Algorithm) == is.Algorithm && is.Size >= int(k.MinSize)
}

func (r *Rule) express(in *cel.Env, all []v1alpha1.Expression) (problems []error) {
	if len(all) > expressionsMax {
		return []error{fmt.Errorf("spec.expressions: there are %d, and may be %d", len(all), expressionsMax)}
	}
	compile := func(e v1alpha1.Expression) (expression, error) { return compileExpression(in, e) }
	r.expressions, problems = each("spec.expressions", all, compile)
	return problems
}
