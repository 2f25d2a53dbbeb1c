package volume

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
)

// Each function here sets an attribute of names that are not the subject's.

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

// list splits at commas and trims; empty elements are dropped.
func list(value string) (elements []string) {
	for _, e := range strings.Split(value, ",") {
		if e = strings.TrimSpace(e); e != "" {
			elements = append(elements, e)
		}
	}
	return elements
}
