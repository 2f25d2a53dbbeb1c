package spec

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	goyaml "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"

	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/problem"
)

// Profiles are what a platform team sets for the volumes of its cluster, in a ConfigMap.
type Profiles struct {
	Profiles map[string]Profile `json:"profiles"`
	// Namespaces has the profile of a namespace's volumes that name none; that of AllNamespaces is for the others.
	Namespaces map[string]string `json:"namespaces"`
	// Drivers has the profile of a driver's volumes that name none, whatever their namespace.
	Drivers map[string]string `json:"drivers"`

	Issuer Profile `json:"-"` // The issuer of volumes for which neither pod nor profile names one.

	Exist bool `json:"-"` // There is a ConfigMap. The zero Profiles are those of none.
}

// LogValue returns how many there are.
func (p *Profiles) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("profiles", len(p.Profiles)), slog.Int("namespaces", len(p.Namespaces)))
}

// A Profile is values of attributes for volumes that do not say, by names without a prefix, and annotations of the
// request, by names with one.
type Profile map[string]string

// AllNamespaces stands for the namespaces that are not named.
const AllNamespaces = "*"

// ProfilesKey is the key of the ConfigMap that has the profiles, as YAML. The issuer has keys of its own, those of
// csi-driver-spiffe.
const ProfilesKey = "profiles.yaml"

// IssuerAttributes returns the attributes that name an issuer.
func IssuerAttributes() []string { return []string{"issuer-name", "issuer-kind", "issuer-group"} }

// ParseProfiles reads the data of the ConfigMap, as far as it is about certificates: other keys, and other attributes
// of profiles, are none of its business. Its error is all that is wrong; what is understood nevertheless is returned
// with it.
func ParseProfiles(data map[string]string) (*Profiles, error) {
	var problems problem.List
	found := &Profiles{Issuer: Profile{}, Exist: true}
	if text, ok := data[ProfilesKey]; ok {
		if err := found.decode(text); err != nil {
			problems = append(problems, problem.New(ProfilesKey, "%w", err))
		}
	}
	for _, key := range IssuerAttributes() {
		if value, ok := data[key]; ok {
			found.Issuer[key] = strings.TrimSpace(value)
		}
	}
	return found, append(problems, found.check()...).Err()
}

// decode reads the profiles. Aliases (YAML 1.2.2, section 7.1) could make any number of bytes of a few.
func (p *Profiles) decode(text string) error {
	if err := problem.CheckSize(text, maxProfilesSize); err != nil {
		return err
	}
	var document goyaml.Node
	err := goyaml.Unmarshal([]byte(text), &document)
	if err == nil && expandedSize(&document, map[*goyaml.Node]int{}) > maxProfilesSize {
		return fmt.Errorf("has more than %d bytes once its aliases are replaced", maxProfilesSize)
	}
	if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
		return fmt.Errorf("is not understood: %s", message.OneLine(err.Error()))
	}
	return problem.CheckCount(len(p.Profiles), maxProfiles, "profiles")
}

// expandedSize returns the bytes of the values of a node, with what aliases stand for, or one more than the bound.
// sizes has those of the nodes that are known.
func expandedSize(node *goyaml.Node, sizes map[*goyaml.Node]int) int {
	if size, known := sizes[node]; known {
		return size
	}
	sizes[node] = maxProfilesSize + 1 // Where it contains itself.
	size := len(node.Value)
	if node.Alias != nil {
		size = expandedSize(node.Alias, sizes)
	}
	for _, child := range node.Content {
		size += expandedSize(child, sizes)
	}
	sizes[node] = min(size, maxProfilesSize+1)
	return sizes[node]
}

// check tries each value for a made-up pod.
func (p *Profiles) check() (problems problem.List) {
	for _, name := range slices.Sorted(maps.Keys(p.Profiles)) {
		if len(problems) >= problem.Max {
			return problems
		}
		if len(p.Profiles[name]) == 0 {
			problems = append(problems, fmt.Errorf("profile %s has no values", message.Quote(name)))
		}
		for _, err := range p.Profiles[name].check() {
			problems = append(problems, fmt.Errorf("profile %s: %w", message.Quote(name), err))
		}
	}
	problems = append(problems, p.Issuer.check()...)
	problems = append(problems, p.checkUse("namespace", p.Namespaces)...)
	return append(problems, p.checkUse("driver", p.Drivers)...)
}

// checkUse checks that the profiles exist that are given to namespaces or drivers.
func (p *Profiles) checkUse(of string, given map[string]string) (problems problem.List) {
	for _, user := range slices.Sorted(maps.Keys(given)) {
		if len(problems) == problem.Max {
			break
		}
		if name := given[user]; p.Profiles[name] == nil {
			problems = append(problems, fmt.Errorf("%s %s: there is no profile %s",
				of, message.Quote(user), message.Quote(name)))
		}
	}
	return problems
}

// check tries the values that are about the certificate.
func (p Profile) check() (problems problem.List) {
	size := 0
	for name, value := range p {
		size += len(name) + len(value)
	}
	if size > maxTotal { // A volume's record has its profile.
		return problem.List{fmt.Errorf("it has %d bytes: at most %d", size, maxTotal)}
	}
	standIn := placeholderParser(Defaults{})
	return p.Check(func(name, value string) error {
		if err := checkValue(value); err != nil {
			return problem.In(name, err)
		}
		if a, ok := table().Get(name); ok && a.InProfiles() {
			return standIn.set(a, name, value)
		}
		if isForeign(name) {
			return checkAnnotation(name, value)
		}
		return nil
	})
}

// Check checks each value of the profile.
func (p Profile) Check(check func(name, value string) error) (problems problem.List) {
	for _, name := range slices.Sorted(maps.Keys(p)) {
		if len(problems) >= problem.Max {
			break
		}
		problems = append(problems, problem.Of(check(name, p[name]))...)
	}
	return problems
}

// names lists the profiles that there are.
func (p *Profiles) names() string {
	if len(p.Profiles) == 0 {
		return "there are none"
	}
	names := slices.Sorted(maps.Keys(p.Profiles))
	if more := len(names) - problem.Max; more > 0 {
		names = append(names[:problem.Max], fmt.Sprintf("%d more", more))
	}
	return message.OneLine("known are " + strings.Join(names, ", "))
}

// setProfile sets the volume's profile, which counts for the attributes that come after it.
func (p *parser) setProfile(name string) error {
	err := p.chooseProfile(name)
	p.profile = p.Profile
	return err
}

// chooseProfile chooses the volume's profile. The recorded one counts only where the current profiles are not known.
func (p *parser) chooseProfile(name string) error {
	live := p.defaults.Live
	if live == nil {
		p.Profile = p.asked.Profile
		if name != "" && p.Profile == nil {
			const format = "is %s, and this driver has no profiles: its operator sets --config-map"
			return fmt.Errorf(format, message.Quote(name))
		}
		return nil
	}
	if name == "" {
		name = live.Drivers[p.asked.Driver]
	}
	if name == "" && p.dialect.byNamespace {
		name = cmp.Or(live.Namespaces[p.Pod.Namespace], live.Namespaces[AllNamespaces])
	}
	profile, ok := live.Profiles[name]
	if name != "" && !ok {
		return fmt.Errorf("is %s: %s", message.Quote(name), live.names())
	}
	p.Profile = maps.Clone(profile)
	if p.Profile["issuer-name"] == "" && !p.dialect.ownIssuer && live.Issuer["issuer-name"] != "" {
		if p.Profile == nil {
			p.Profile = Profile{}
		}
		for _, row := range IssuerAttributes() {
			p.Profile[row] = live.Issuer[row]
		}
	}
	if p.Profile == nil && !live.Exist { // The ConfigMap is gone: the volume stays as it was.
		p.Profile = p.asked.Profile
	}
	return nil
}

// annotateByProfile gives the request the profile's annotations, where the pod gives none of that name.
func (p *parser) annotateByProfile() {
	for key, value := range p.Profile {
		if _, given := p.Annotations[key]; !given && isForeign(key) {
			p.annotate(key, value)
		}
	}
}
