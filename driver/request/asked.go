package request

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// A name is one that a volume asked for.
type name struct {
	kind, value string
	there       bool // The certificate has it.
	elsewhere   bool // It has it as another kind: Vault makes an e-mail address of a DNS name that looks like one.
}

func (n name) String() string { return fmt.Sprintf("%s %q", n.kind, n.value) }

// covers requires every name that was asked for. More names are the issuer's choice. In csi-driver's dialect
// missing names are a warning, unless all are missing: so it mounts what csi-driver mounts.
func (p *Pair) covers(v volume.Volume) error {
	names := asked(v, p.Chain.Leaf())
	missing := slices.DeleteFunc(slices.Clone(names), func(n name) bool { return n.there })
	if len(missing) == 0 {
		return nil
	}
	problem := lacks(missing)
	if v.Dialect.Lenient() && slices.ContainsFunc(names, func(n name) bool { return n.there || n.elsewhere }) {
		p.warn("MissingName", problem.Error())
		return nil
	}
	return problem
}

// asked lists the names that a volume asks for, with which of them the certificate has. A common name may be left out
// where a DNS name says the same: public CAs do (CA/Browser Forum Baseline Requirements, 7.1.4.3).
func asked(v volume.Volume, leaf *x509.Certificate) (names []name) {
	given := namesOf(leaf)
	for _, dns := range v.DNSNames {
		elsewhere := given.emails[dns] || leaf.Subject.CommonName == dns
		names = append(names, name{"DNS name", dns, given.named(dns), elsewhere})
	}
	for _, ip := range v.IPs {
		names = append(names, name{"IP address", ip.String(), given.ips[ip.String()], given.named(ip.String())})
	}
	for _, uri := range v.URIs {
		names = append(names, name{"URI", uri.String(), given.uris[uri.String()], false})
	}
	if cn := commonName(v); cn != "" {
		names = append(names, name{"common name", cn, leaf.Subject.CommonName == cn || given.named(cn), false})
	}
	return names
}

// given holds the names of a certificate. An issuer may give any number of them, and a volume may ask for many.
type given struct{ dns, ips, uris, emails map[string]bool }

// namesOf returns the names of a certificate.
func namesOf(leaf *x509.Certificate) given {
	return given{
		dns:    set(leaf.DNSNames, strings.ToLower), // Case does not count (RFC 4343).
		ips:    set(leaf.IPAddresses, net.IP.String),
		uris:   set(leaf.URIs, (*url.URL).String),
		emails: set(leaf.EmailAddresses, func(address string) string { return address }),
	}
}

// set returns the texts of values.
func set[T any](values []T, text func(T) string) map[string]bool {
	texts := make(map[string]bool, len(values))
	for _, v := range values {
		texts[text(v)] = true
	}
	return texts
}

// named reports whether the certificate has the DNS name.
func (g given) named(name string) bool { return g.dns[strings.ToLower(name)] }

// commonName returns the common name of the subject.
func commonName(v volume.Volume) string {
	var sequence pkix.RDNSequence
	if v.RawSubject == nil {
		return v.Subject.CommonName
	}
	if _, err := asn1.Unmarshal(v.RawSubject, &sequence); err != nil {
		return ""
	}
	var subject pkix.Name
	subject.FillFromRDNSequence(&sequence)
	return subject.CommonName
}

// serves requires the usages that the pod itself asked for, except those that the previous pair lacks, too. A
// warning names the others that are missing: what the pod does may not need them.
func (p *Pair) serves(v volume.Volume, before Pair, now time.Time) error {
	missing := slices.DeleteFunc(slices.Clone(v.Usages), p.has)
	if len(missing) == 0 {
		return nil
	}
	problem := lacks(missing)
	if v.NamesUsages && !v.Dialect.Lenient() && slices.ContainsFunc(missing, before.under(p.CA, now).has) {
		return problem
	}
	p.warn("MissingUsage", problem.Error())
	return nil
}

// lasts warns of a certificate that is valid for longer than was asked for, or for less than half of that. It counts:
// some issuers, such as those of ACME, go by their own rules. In csi-driver's dialect, where 90 days are asked for by
// default, a shorter one is usual.
func (p *Pair) lasts(v volume.Volume, now time.Time) {
	leaf := p.Chain.Leaf()
	left := leaf.NotAfter.Sub(now)
	longer := left > v.Duration+v.Duration/10+MaxSkew
	shorter := left < v.Duration/2 && !v.Dialect.Lenient()
	if v.Duration == 0 || !longer && !shorter {
		return
	}
	whole := leaf.NotAfter.Sub(leaf.NotBefore).Round(time.Minute)
	p.warn("OtherDuration", fmt.Sprintf("the certificate is valid for %s, and %s was asked for", whole, v.Duration))
}

// under returns the pair with the path to CA certificates, which a pair that was read from its volume does not have.
func (p Pair) under(ca chain.Bundle, now time.Time) *Pair {
	if p.Key == nil {
		return &p
	}
	if c, err := chain.New(p.Chain.Certificates(), ca, p.Key.Public(), now); err == nil {
		p.Chain = c
	}
	return &p
}

// has reports whether the certificate has a usage. One without the extension has them all (RFC 5280, sections 4.2.1.3
// and 4.2.1.12), and so has none at all: nothing is known to be missing.
func (p *Pair) has(u signer.Usage) bool {
	if p.Key == nil {
		return true
	}
	key, extended, err := signer.X509([]signer.Usage{u})
	if err != nil {
		return false
	}
	leaf := p.Chain.Leaf()
	forbidden := func(e x509.ExtKeyUsage) bool { return !p.Chain.Allows(e) }
	return (leaf.KeyUsage == 0 || leaf.KeyUsage&key == key) && !slices.ContainsFunc(extended, forbidden)
}

// lacks names what is missing: the first of many.
func lacks[T any](missing []T) error {
	const most = 5
	var words []string
	for _, one := range missing[:min(len(missing), most)] {
		word := fmt.Sprint(one)
		if _, usage := any(one).(signer.Usage); usage {
			word = fmt.Sprintf("usage %q", word)
		}
		words = append(words, word)
	}
	if more := len(missing) - most; more > 0 {
		words = append(words, fmt.Sprintf("%d more", more))
	}
	return fmt.Errorf("the certificate lacks the %s that was asked for", strings.Join(words, ", "))
}
