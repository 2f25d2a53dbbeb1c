package volume

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// Profiles are what a platform team sets for the volumes of its cluster, in a ConfigMap.
type Profiles struct {
	spec.Profiles

	// Distrusted has the CA certificates that no volume may have; nil: there is no ConfigMap that could say so.
	Distrusted Fingerprints
}

// LogValue returns how many there are.
func (p *Profiles) LogValue() slog.Value {
	return slog.GroupValue(append(p.Profiles.LogValue().Group(), slog.Int("distrusted", len(p.Distrusted)))...)
}

// ParseProfiles reads the data of the ConfigMap. Its error is all that is wrong with it.
func ParseProfiles(data map[string]string) (*Profiles, error) {
	known := append([]string{spec.ProfilesKey, DistrustKey}, spec.IssuerAttributes()...)
	var problems problem.List
	for _, key := range slices.Sorted(maps.Keys(data)) {
		if !slices.Contains(known, key) && len(problems) < problem.Max {
			problems = append(problems, problem.New("the key "+message.Quote(key),
				"is not known: did you mean %s?", problem.Nearest(key, known)))
		}
	}
	found, err := spec.ParseProfiles(data)
	problems = append(problems, problem.Of(err)...)
	distrusted, err := parseDistrust(data[DistrustKey])
	problems = append(problems, problem.Of(problem.In(DistrustKey, err))...)
	for _, name := range slices.Sorted(maps.Keys(found.Profiles)) {
		for _, err := range checkProfile(found.Profiles[name]) {
			if len(problems) < problem.Max {
				problems = append(problems, fmt.Errorf("profile %s: %w", message.Quote(name), err))
			}
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return &Profiles{Profiles: *found, Distrusted: distrusted}, nil
}

// checkProfile tries the values that are not about the certificate for a made-up pod.
func checkProfile(p spec.Profile) problem.List {
	standIn := placeholderParser(Defaults{AnyTrustFile: true})
	return p.Check(func(name, value string) error {
		if a, ok := table().Get(name); ok && a.InProfiles() {
			return standIn.set(a, name, value)
		}
		if known := profileAttributes(); !slices.Contains(known, name) && !isAnnotation(name) {
			return problem.New(message.Quote(name), "is not an attribute of profiles: did you mean %s?",
				problem.Nearest(name, known))
		}
		return nil
	})
}

// profileAttributes returns the names of all attributes that a profile may give, in order.
func profileAttributes() (names []string) {
	for _, a := range Attributes() {
		if a.InProfiles() {
			names = append(names, a.Name)
		}
	}
	slices.Sort(names)
	return names
}

// isAnnotation reports whether a profile's key is that of an annotation.
func isAnnotation(name string) bool { return spec.Mayfly.Annotates(name) && !isMisspelt(name) }
