package volume

import (
	"maps"
	"slices"
	"strings"
)

// translate turns the attributes of a volume of cert-manager's csi-driver-spiffe into ours. That driver knows one
// attribute, and gives every pod the same: its SPIFFE ID and nothing else (its internal/csi/driver).
func translate(asked *Asked) (problems Problems) {
	if asked.Driver != SPIFFEDriver {
		return nil
	}
	const fsGroup = SPIFFEDriver + "/fs-group"
	ours := map[string]string{
		Prefix + "spiffe":     "true",
		Prefix + "key-usages": "digital signature,key encipherment,server auth,client auth",
	}
	for _, key := range slices.Sorted(maps.Keys(asked.Attributes)) {
		switch value := asked.Attributes[key]; {
		case strings.HasPrefix(key, kubeletPrefix):
			ours[key] = value
		case key == fsGroup:
			ours[Prefix+"fs-group"] = value
		case len(problems) < maxProblems:
			problems = append(problems, problem(quote(key), "is not a known attribute: %s knows %s", SPIFFEDriver, fsGroup))
		}
	}
	asked.Attributes = ours
	return problems
}
