package policy

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
)

// A pattern is text in which `*` stands for something.
type pattern struct {
	text string
	is   *regexp.Regexp
}

// What `*` stands for.
const (
	anything = `.*`
	// part has none of the characters that end a part of a URI (RFC 3986, section 2.2): with one of them `*` could
	// begin another host or path than the pattern's.
	part = `[A-Za-z0-9._~-]+`
)

// parsePattern reads a pattern.
func parsePattern(text, star string) (pattern, error) {
	if text == "" {
		return pattern{}, errors.New("it is empty")
	}
	is, err := regexp.Compile(`(?s)\A` + strings.ReplaceAll(regexp.QuoteMeta(text), `\*`, star) + `\z`)
	if err != nil {
		return pattern{}, fmt.Errorf("%q is not understood: %w", text, err)
	}
	return pattern{text, is}, nil
}

func (p pattern) String() string { return p.text }

func (p pattern) covers(text string) bool { return p.is.MatchString(text) }

// uri is a pattern of URIs.
type uri struct{ pattern }

func parseURI(u v1alpha1.URI) (uri, error) {
	text := string(u)
	if !uris.MatchString(text) {
		return uri{}, fmt.Errorf("%q is not a URI, such as spiffe://example.org/ns/*/sa/web", text)
	}
	if _, rest, ok := strings.Cut(text, "://"); ok && !hosts.MatchString(rest) {
		return uri{}, fmt.Errorf("%q has a * that could end in another host: one may stand for a whole host, or for "+
			"what comes before the first dot that is written out", text)
	}
	p, err := parsePattern(text, part)
	return uri{p}, err
}

// uris have a scheme, and characters that can be seen.
var uris = regexp.MustCompile(`^[a-z][a-z0-9+.-]*:[!-~]+$`)

// hosts are what a pattern may have for the host: no *, one alone, or one before a dot (RFC 3986, section 3.2). With
// https://example.org* it could be example.org.evil.test.
var hosts = regexp.MustCompile(`^([^*/?#]*|\*(\.[^*/?#]+)?)([/?#]|$)`)

// covers refuses steps to a directory above, which whoever reads the URI may take (RFC 3986, section 5.2.4).
func (u uri) covers(text string) bool {
	return u.pattern.covers(text) && (text == u.text || !dots.MatchString(text))
}

var dots = regexp.MustCompile(`/\.\.?([/?#]|$)`)

// A domain is a pattern of DNS names: a name, or one whose first label is `*` for one label, or `**` for one or more;
// `**` alone is for any name.
type domain string

func parseDomain(text string) (domain, error) {
	name, ok := strings.CutPrefix(text, "**.")
	if !ok {
		name = strings.TrimPrefix(text, "*.")
	}
	if text != "**" && (!hostName(name) || strings.Contains(name, "*")) {
		return "", fmt.Errorf("%q is not a DNS name in small letters, nor one after '*.' or '**.'", text)
	}
	return domain(text), nil
}

func (d domain) String() string { return string(d) }

// domains are patterns of DNS names, of which there may be hundreds. Make them with newDomains.
type domains struct {
	all   []domain
	stars map[string]stars // By the name behind them.
}

// stars are how many labels may be before a name: those that its domains say.
type stars struct{ none, one, many bool }

func newDomains(all []domain) domains {
	known := map[string]stars{}
	for _, d := range all {
		name := strings.TrimLeft(string(d), "*")
		behind := strings.TrimPrefix(name, ".")
		may := known[behind]
		switch len(d) - len(name) {
		case 0:
			may.none = true
		case 1:
			may.one = true
		default:
			may.many = true
		}
		known[behind] = may
	}
	return domains{all, known}
}

// covers reports whether a name is of one of the domains. A wildcard stands for one label (RFC 9525, section 6.3), so
// it is of a domain that has all of those.
func (d domains) covers(of dnsName) bool {
	if of.small == "" || len(d.stars) == 0 {
		return false
	}
	if d.stars[of.small].none || d.stars[""].many {
		return true
	}
	rest, before := of.small, 0
	for _, after, ok := strings.Cut(rest, "."); ok; _, after, ok = strings.Cut(rest, ".") {
		rest, before = after, before+1
		if may := d.stars[rest]; may.many || may.one && before == 1 {
			return true
		}
	}
	return false
}

// A cover is what names may be of.
type cover interface {
	fmt.Stringer
	covers(name string) bool
}

// covered reports whether a name is of one of them.
func covered[C cover](all []C, name string) bool {
	for _, one := range all {
		if one.covers(name) {
			return true
		}
	}
	return false
}

// each reads each text of a field.
func each[C, T any](field string, texts []T, read func(T) (C, error)) (all []C, problems []error) {
	for i, text := range texts {
		one, err := read(text)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s[%d]: %w", field, i, err))
			continue
		}
		all = append(all, one)
	}
	return all, problems
}

// several returns a list for a message. Of a long one it shows the begin.
func several[T any](all []T) string {
	const most = 8
	var texts []string
	for i, one := range all {
		if i == most {
			texts = append(texts, fmt.Sprintf("%d more", len(all)-most))
			break
		}
		texts = append(texts, fmt.Sprint(one))
	}
	return strings.Join(texts, ", ")
}
