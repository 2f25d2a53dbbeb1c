package volume

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mayfly-csi/mayfly/signer"
)

// Each function here sets one attribute from its value: the value that was given, or the default, or "".

func (p *parser) issuerName(value string) error {
	p.Issuer.Name = value
	if value == "" {
		p.Issuer.Name = p.defaults.IssuerName
	}
	if p.Issuer.Name == "" {
		return errors.New("is required: the name of the issuer that signs")
	}
	return nil
}

func (p *parser) issuerKind(value string) error  { p.Issuer.Kind = value; return nil }
func (p *parser) issuerGroup(value string) error { p.Issuer.Group = value; return nil }

func (p *parser) commonName(value string) error {
	const longest = 64 // RFC 5280, appendix A.1, ub-common-name.
	if len(value) > longest && !p.old {
		return fmt.Errorf("is %d characters long: a common name has at most %d; use dns-names", len(value), longest)
	}
	p.CommonName = value
	return nil
}

// label is a label of a host name (RFC 1123); underscores are found in real service names.
var label = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$`)

// dnsName checks a host name, which may be a wildcard.
func dnsName(name string) error {
	if len(name) > 253 {
		return fmt.Errorf("has a DNS name of %d characters, %s: the longest is 253", len(name), quote(name))
	}
	for _, l := range strings.Split(strings.TrimPrefix(name, "*."), ".") {
		if !label.MatchString(l) {
			return fmt.Errorf("has %s, which is not a DNS name", quote(name))
		}
	}
	return nil
}

func (p *parser) dnsNames(value string) error {
	p.DNSNames = list(value)
	for _, name := range p.DNSNames {
		if err := dnsName(name); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) ipSANs(value string) error {
	for _, text := range list(value) {
		ip := net.ParseIP(text)
		if ip == nil {
			return fmt.Errorf("has %s, which is not an IP address", quote(text))
		}
		p.IPs = append(p.IPs, ip)
	}
	return nil
}

func (p *parser) uriSANs(value string) error {
	for _, text := range list(value) {
		uri, err := url.Parse(text)
		if err != nil || uri.Scheme == "" || uri.Host+uri.Opaque == "" || !ascii(text) {
			return fmt.Errorf("has %s, which is not a URI such as spiffe://example.org/web", quote(text))
		}
		p.URIs = append(p.URIs, uri)
	}
	return nil
}

func (p *parser) duration(value string) (err error) {
	p.Duration, err = atLeastASecond(value)
	return err
}

func (p *parser) renewBefore(value string) (err error) {
	if value != "" {
		p.RenewBefore, err = atLeastASecond(value)
	}
	return err
}

func atLeastASecond(value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil {
		return 0, fmt.Errorf("is %s, which is not a duration such as 30m or 24h", quote(value))
	}
	if d < time.Second {
		return 0, fmt.Errorf("is %s: the shortest is 1s", d)
	}
	return d, nil
}

func (p *parser) keyUsages(value string) error {
	known := signer.Usages()
	for _, name := range list(value) {
		if !slices.Contains(known, name) {
			return fmt.Errorf("has %s, which is not a key usage: did you mean %q?", quote(name), nearest(name, known))
		}
		if u := signer.Usage(name); !slices.Contains(p.Usages, u) {
			p.Usages = append(p.Usages, u)
		}
	}
	return nil
}

func (p *parser) keyAlgorithm(value string) error {
	for _, a := range []Algorithm{RSA, ECDSA, Ed25519} {
		if strings.EqualFold(value, string(a)) {
			p.Key.Algorithm = a
			return nil
		}
	}
	return fmt.Errorf("is %s: known are RSA, ECDSA and Ed25519", quote(value))
}

func (p *parser) keySize(value string) (err error) {
	if value == "" {
		return nil
	}
	if p.Key.Size, err = strconv.Atoi(value); err != nil || p.Key.Size <= 0 {
		return fmt.Errorf("is %s, which is not a number of bits", quote(value))
	}
	return nil
}

func (p *parser) keyEncoding(value string) error {
	for _, e := range []Encoding{"", PKCS1, PKCS8} {
		if strings.EqualFold(value, string(e)) {
			p.Key.Encoding = e
			return nil
		}
	}
	return fmt.Errorf("is %s: known are PKCS1 and PKCS8", quote(value))
}

func (p *parser) caFile(value string) error          { return fileName(&p.Files.CA, value) }
func (p *parser) certificateFile(value string) error { return fileName(&p.Files.Certificate, value) }
func (p *parser) keyFile(value string) error         { return fileName(&p.Files.Key, value) }

func fileName(name *string, value string) error {
	switch {
	case strings.ContainsAny(value, "/\x00"):
		return fmt.Errorf("is %s: a file name, not a path", quote(value))
	case strings.HasPrefix(value, "."):
		return fmt.Errorf("is %s: a file name must not begin with a dot", quote(value))
	case len(value) > 255: // NAME_MAX, linux/limits.h.
		return fmt.Errorf("is %d bytes long: a file name has at most 255", len(value))
	}
	*name = value
	return nil
}

func (p *parser) fsGroup(value string) error {
	if value == "" {
		return nil
	}
	gid, err := strconv.ParseUint(value, 10, 32)
	if err != nil || gid == 0 {
		return fmt.Errorf("is %s: a group id is 1 to 4294967295", quote(value))
	}
	group := int(gid)
	p.Group = &group
	return nil
}

func (p *parser) layout(value string) error {
	for _, name := range list(value) {
		l := Layout(name)
		if l != PEM && l != Bundle {
			return fmt.Errorf("has %s: known are pem and bundle", quote(name))
		}
		if !slices.Contains(p.Layouts, l) {
			p.Layouts = append(p.Layouts, l)
		}
	}
	return nil
}

// list splits at commas and trims; empty elements are dropped.
func list(value string) (elements []string) {
	for _, e := range strings.Split(value, ",") {
		if e = strings.TrimSpace(e); e != "" {
			elements = append(elements, e)
		}
	}
	return elements
}

// quote makes a value fit for a message, whatever is in it.
func quote(value string) string {
	const longest = 64
	if len(value) > longest {
		return strconv.QuoteToASCII(value[:longest]) + "…"
	}
	return strconv.QuoteToASCII(value)
}

func ascii(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > 127 }) < 0
}
