package policy

import "strings"

// A dnsName is a DNS name, made ready to be compared with many patterns.
type dnsName struct {
	text  string // As it was asked for.
	small string // In small letters; empty: it is no host's name.
}

// newDNSName makes a name ready.
func newDNSName(text string) dnsName {
	small := lower(text)
	if !hostName(small) {
		small = ""
	}
	return dnsName{text, small}
}

// String returns the name as it was asked for.
func (n *dnsName) String() string { return n.text }

// lower returns a DNS name in small letters. Those of ASCII alone have no case (RFC 4343): the Kelvin sign is no k.
func lower(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r - 'A' + 'a'
		}
		return r
	}, name)
}

// hostName reports whether a name is made of labels, of which the first may be a wildcard. The old dialect takes names
// that are not.
func hostName(name string) bool {
	for label := range strings.SplitSeq(strings.TrimPrefix(name, "*."), ".") {
		if label == "" || strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			return false
		}
	}
	return true
}
