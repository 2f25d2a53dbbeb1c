package spec

import "strings"

// ParseEarlier parses a certificate for which an earlier driver asked.
func ParseEarlier(asked Asked, defaults Defaults) (Spec, error) {
	return Parse(asked.Earlier(), defaults)
}

// Earlier returns what was asked of an earlier driver as it is asked now. That one knew the attributes of csi-driver's
// dialect under two prefixes, and in volumes of any name but csi-driver-spiffe's: one with the old prefix was enough
// for its defaults. The tables are those of attributes that are not about the certificate.
func (a Asked) Earlier(tables ...*Table) Asked {
	a.Dialect = a.dialect()
	if a.Dialect == Mayfly && usesOldPrefix(a.Attributes) {
		a.Dialect = CSIDriver
	}
	renamed := map[string]string{}
	for key, value := range a.Attributes {
		for _, t := range append(tables, table()) {
			if _, use := t.Translate(a.Dialect, key); use != "" {
				key = use
			}
		}
		renamed[key] = value
	}
	a.Attributes = renamed
	return a
}

func usesOldPrefix(attributes map[string]string) bool {
	for key := range attributes {
		if strings.HasPrefix(key, OldPrefix) {
			return true
		}
	}
	return false
}
