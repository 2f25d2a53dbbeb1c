package policy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// selects reports whether the rule is about the pod.
func (r Rule) selects(pod signer.Pod) bool {
	return (len(r.namespaces) == 0 || covered(r.namespaces, pod.Namespace)) &&
		(len(r.accounts) == 0 || covered(r.accounts, pod.ServiceAccount))
}

// A candidate is a volume about which rules are asked. It is made ready once for all of them.
type candidate struct {
	spec.Spec
	identity  decide.Identity // Of the pod.
	dnsNames  []dnsName
	subject   subject
	problems  problem.List          // What no rule can allow in the subject.
	variables func() map[string]any // Of expressions.
	left      uint64                // What expressions may cost yet.
}

// newCandidate makes a volume ready to be asked about.
func newCandidate(v spec.Spec, of decide.Identity) *candidate {
	c := &candidate{Spec: v, identity: of, left: maxCost}
	for _, name := range v.DNSNames {
		c.dnsNames = append(c.dnsNames, newDNSName(name))
	}
	c.subject, c.problems = parseSubject(v)
	c.variables = sync.OnceValue(func() map[string]any { return variables(v, c.subject) })
	return c
}

// against returns all that the rule has against the volume.
func (r Rule) against(c *candidate) (problems problem.List) {
	if r.Err != nil {
		return problem.List{fmt.Errorf("it has a mistake, and so allows nothing: %w", r.Err)}
	}
	problems = slices.Concat(c.problems, r.names(c), r.addresses(c.Spec, c.identity), r.limits(c.Spec),
		annotations(c.Spec, r.annotations))
	if len(problems) > 0 { // An expression would speak of what is refused anyway.
		return problems
	}
	for _, e := range r.expressions {
		if err := e.against(c.variables(), &c.left); err != nil {
			problems = append(problems, err)
		}
	}
	return problems
}

// A refusal is that a value is not allowed. It is written when it is read: of thousands a message shows some.
type refusal struct {
	format  string // Of the value, and of what is allowed.
	value   any
	allowed func() string
}

// Error implements [error].
func (r refusal) Error() string { return fmt.Sprintf(r.format, r.value, r.allowed()) }

// names returns what the rule has against DNS names, and against a subject.
func (r Rule) names(c *candidate) (problems problem.List) {
	dns := sync.OnceValue(func() string { return allowed(r.dns(c.Pod)) })
	for i := range c.dnsNames {
		if name := &c.dnsNames[i]; !r.allowsDNS(*name, c.Pod) {
			problems = append(problems, refusal{"DNS name %q is not allowed: %s", name, dns})
		}
	}
	s := c.subject
	if s.commonName != "" && !r.allowsDNS(newDNSName(s.commonName), c.Pod) && !covered(r.commonNames, s.commonName) {
		problems = append(problems, refusal{"common name %q is not allowed: %s", s.commonName, func() string {
			return allowed(append(stringsOf(r.commonNames), r.dns(c.Pod)...))
		}})
	}
	organizations := func() string { return allowed(r.organizations) }
	for _, o := range s.organizations {
		if !covered(r.organizations, o) {
			problems = append(problems, refusal{"organization %q is not allowed: %s", o, organizations})
		}
	}
	return append(problems, r.wildcard(append(slices.Clone(c.DNSNames), s.commonName))...)
}

// wildcard returns what the rule has against wildcards. A name stands for many hosts wherever it has a *: some programs
// take one for a part of a label (RFC 6125, section 6.4.3).
func (r Rule) wildcard(names []string) (problems problem.List) {
	for _, name := range names {
		if strings.Contains(name, "*") && !r.wildcards {
			problems = append(problems, fmt.Errorf("%q is a wildcard, which only allow.wildcards allows", name))
		}
	}
	return problems
}

func (r Rule) allowsDNS(name dnsName, pod signer.Pod) bool {
	return r.ownNames && r.own.own(name, pod) || r.dnsNames.covers(name)
}

// dns returns the DNS names that the pod may have, for a message.
func (r Rule) dns(pod signer.Pod) []string {
	if r.ownNames {
		return append([]string{r.own.ownNames(pod)}, stringsOf(r.dnsNames.all)...)
	}
	return stringsOf(r.dnsNames.all)
}

// addresses returns what the rule has against IP addresses and URIs.
func (r Rule) addresses(v spec.Spec, of decide.Identity) (problems problem.List) {
	ips, uris := func() string { return allowed(r.ips) }, func() string { return r.allowedURIs(of) }
	for _, ip := range v.IPs {
		if !r.allowsIP(ip, of) {
			const format = "IP address %s is not proved to be the pod's, nor allowed: %s"
			problems = append(problems, refusal{format, ip, ips})
		}
	}
	for _, uri := range v.URIs {
		if !r.allowsURI(uri, of) {
			problems = append(problems, refusal{"URI %q is not allowed: %s", uri, uris})
		}
	}
	return problems
}

func (r Rule) allowsIP(ip net.IP, of decide.Identity) bool {
	addr, ok := netip.AddrFromSlice(ip)
	addr = addr.Unmap()
	return r.ownNames && has(of.IPs, ip) ||
		ok && slices.ContainsFunc(r.ips, func(p netip.Prefix) bool { return p.Contains(addr) })
}

func (r Rule) allowsURI(uri *url.URL, of decide.Identity) bool {
	return r.ownNames && of.SPIFFEID != nil && uri.String() == of.SPIFFEID.String() || covered(r.uris, uri.String())
}

func (r Rule) allowedURIs(of decide.Identity) string {
	all := stringsOf(r.uris)
	if r.ownNames && of.SPIFFEID != nil {
		all = append([]string{of.SPIFFEID.String()}, all...)
	}
	return allowed(all)
}

// limits returns what the rule has against lifetime, usages, issuer and key.
func (r Rule) limits(v spec.Spec) (problems problem.List) {
	if v.IsCA && !r.isCA {
		problems = append(problems, errors.New("it may not be a CA's certificate"))
	}
	problems = append(problems, r.boundsOf(v.Dialect).against(v)...)
	for _, usage := range v.Usages {
		if slices.Contains(authoritative(), usage) && !r.allowsUsage(usage) {
			problems = append(problems, fmt.Errorf("key usage %q is not allowed%s", usage, r.allowedUsages()))
		}
	}
	if len(r.issuers) > 0 && !slices.ContainsFunc(r.issuers, func(i issuer) bool { return i.covers(v.Issuer) }) {
		problems = append(problems, fmt.Errorf("issuer %s %s of %s is not allowed: %s",
			v.Issuer.Kind, v.Issuer.Name, v.Issuer.Group, allowed(r.issuers)))
	}
	if len(r.keys) > 0 && !slices.ContainsFunc(r.keys, func(k key) bool { return k.covers(v.Key) }) {
		problems = append(problems, fmt.Errorf("key %s of %d bits is not allowed: %s",
			v.Key.Algorithm, v.Key.Size, allowed(r.keys)))
	}
	return problems
}

// boundsOf returns the bounds of a dialect, where the rule does not say others.
func (r Rule) boundsOf(d spec.Dialect) bounds {
	b := boundsOf(d)
	if r.maxDuration > 0 {
		b.most = r.maxDuration
		b.least = min(b.least, b.most)
	}
	if r.minDuration > 0 {
		b.least = r.minDuration
		b.most = max(b.least, b.most)
	}
	if len(r.usages) > 0 {
		b.usages = r.usages
	}
	return b
}

// allowsUsage lets a pod speak for a CA only where the rule says so by a usage's name, or by isCA.
func (r Rule) allowsUsage(u signer.Usage) bool {
	if len(r.usages) == 0 {
		return r.isCA || !slices.Contains(authoritative(), u)
	}
	return slices.Contains(r.usages, u)
}

func (r Rule) allowedUsages() string {
	if len(r.usages) == 0 {
		return ": it is a CA's"
	}
	return ": " + allowed(r.usages)
}

func allowed[T any](all []T) string {
	if len(all) == 0 {
		return "there are none that are"
	}
	return "allowed are " + several(all)
}
