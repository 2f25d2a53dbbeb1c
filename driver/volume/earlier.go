package volume

import "strings"

// ParseEarlier parses a volume that an earlier driver took. That one knew the attributes of csi-driver's dialect under
// two prefixes, and in volumes of any name but csi-driver-spiffe's: one with the old prefix was enough for its
// defaults.
func ParseEarlier(asked Asked, defaults Defaults) (Volume, error) {
	asked.Dialect = asked.dialect()
	if asked.Dialect == Mayfly && usesOldPrefix(asked.Attributes) {
		asked.Dialect = CSIDriver
	}
	d, renamed := asked.Dialect.row(), map[string]string{}
	for key, value := range asked.Attributes {
		if _, use := d.translate(key); use != "" {
			key = use
		}
		renamed[key] = value
	}
	asked.Attributes = renamed
	v, err := Parse(asked, defaults)
	if renamed[d.keyOf("mode")]+v.Profile["mode"] == "" { // All users of such a pod may read its files.
		v.Owner.Mode = nil
	}
	return v, err
}

func usesOldPrefix(attributes map[string]string) bool {
	for key := range attributes {
		if strings.HasPrefix(key, OldPrefix) {
			return true
		}
	}
	return false
}
