package spec

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/mayfly-csi/mayfly/signer/message"
)

// Each function here sets an attribute of names that are not the subject's.

// isLabel reports whether a text is a label of a host name (RFC 1123); underscores are found in real service names.
func isLabel(text string) bool {
	const longest = 63
	inside := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
	}
	return text != "" && len(text) <= longest && text[0] != '-' && text[len(text)-1] != '-' &&
		!strings.ContainsFunc(text, func(c rune) bool { return !inside(c) })
}

func (p *parser) setDNSNames(value string) error {
	return p.Dialect.Each(value, List(value), func(name string) error {
		p.DNSNames = append(p.DNSNames, name)
		return p.checkDNSName(name)
	})
}

// checkDNSName checks a host name, which may be a wildcard. csi-driver takes whatever a request can hold.
func (p *parser) checkDNSName(name string) error {
	switch {
	case !isASCII(name):
		return fmt.Errorf("has %s, which is not a DNS name: write it in ASCII, as xn--…", message.Quote(name))
	case p.dialect.lenient && !strings.ContainsFunc(name, unicode.IsControl):
		return nil
	case net.ParseIP(name) != nil:
		return fmt.Errorf("has %s, which is not a DNS name: IP addresses are for ip-sans", message.Quote(name))
	case strings.HasSuffix(name, "."):
		return fmt.Errorf("has %s, which is not a DNS name here: leave the last dot out", message.Quote(name))
	case len(name) > 253:
		return fmt.Errorf("has a DNS name of %d characters, %s: the longest is 253", len(name), message.Quote(name))
	}
	for _, l := range strings.Split(strings.TrimPrefix(name, "*."), ".") {
		if !isLabel(l) {
			return fmt.Errorf("has %s, which is not a DNS name", message.Quote(name))
		}
	}
	return nil
}

func (p *parser) setIPSANs(value string) error {
	return p.Dialect.Each(value, List(value), func(text string) error {
		ip := net.ParseIP(text)
		if ip == nil {
			return fmt.Errorf("has %s, which is not an IP address such as 10.0.0.1 or fd00::1", message.Quote(text))
		}
		if !slices.ContainsFunc(p.IPs, ip.Equal) {
			p.IPs = append(p.IPs, ip)
		}
		return nil
	})
}

func (p *parser) setURISANs(value string) error {
	ids, known := 0, map[string]bool{}
	return p.Dialect.Each(value, List(value), func(text string) error {
		uri, err := p.parseURI(text)
		if err != nil || known[uri.String()] {
			return err
		}
		known[uri.String()] = true
		if uri.Scheme == "spiffe" {
			ids++
		}
		if ids > 1 && !p.dialect.lenient {
			return fmt.Errorf("has %s, a second SPIFFE ID: a certificate has one (SPIFFE's X509-SVID, section 2)",
				message.Quote(text))
		}
		p.URIs = append(p.URIs, uri)
		return nil
	})
}

// parseURI reads a URI that a request can hold.
func (p *parser) parseURI(text string) (*url.URL, error) {
	parse := url.Parse
	if p.dialect.lenient {
		parse = url.ParseRequestURI // As csi-driver does: it takes a path, too.
	}
	uri, err := parse(text)
	if err != nil || !survivesEncoding(uri) || !p.dialect.lenient && (uri.Scheme == "" || uri.Host+uri.Opaque == "") {
		return nil, fmt.Errorf("has %s, which is not a URI such as spiffe://example.org/web", message.Quote(text))
	}
	if p.dialect.lenient {
		return uri, nil
	}
	if _, secret := uri.User.Password(); secret {
		return nil, fmt.Errorf("has a URI of %s with a password, which all could read in the certificate",
			message.Quote(uri.Host))
	}
	if strings.ContainsFunc(text, needsEscape) {
		const format = "has %s, with a character that a URI has only as %%20 and the like (RFC 3986, section 2.1)"
		return nil, fmt.Errorf(format, message.Quote(text))
	}
	if uri.Scheme == "spiffe" {
		if _, err := spiffeid.FromURI(uri); err != nil {
			return nil, fmt.Errorf("has %s, which is not a SPIFFE ID: %w", message.Quote(text), err)
		}
	}
	return uri, nil
}

// survivesEncoding reports whether a URI comes out of a request as it went in: crypto/x509 refuses some hosts
// (domainNameValid).
func survivesEncoding(uri *url.URL) bool {
	text := uri.String()
	again, err := url.Parse(text)
	if err != nil || again.String() != text || !isASCII(text) {
		return false
	}
	control := func(r rune) bool { return r <= ' ' || r == 0x7f }
	labels := strings.Split(again.Host, ".")
	return again.Host == "" || !slices.Contains(labels, "") && !strings.ContainsFunc(again.Host, control)
}

// needsEscape reports whether a character is none of RFC 3986, section 2.
func needsEscape(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"<>\\^`{|}", r)
}
