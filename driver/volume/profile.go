package volume

import (
	"cmp"
	"fmt"
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

	// Distrusted has the CA certificates that no volume may have; nil: there is no ConfigMap that could say so.
	Distrusted Fingerprints `json:"-"`
}

// A Profile is values of attributes for volumes that do not say, by names without a prefix, and annotations of the
// request, by names with one.
type Profile map[string]string

// AllNamespaces stands for the namespaces that are not named.
const AllNamespaces = "*"

// ProfilesKey is the key of the ConfigMap that has the profiles, as YAML. The issuer has keys of its own, those of
// csi-driver-spiffe.
const ProfilesKey = "profiles.yaml"

// issuerAttributeNames returns the attributes that name an issuer.
func issuerAttributeNames() []string { return []string{"issuer-name", "issuer-kind", "issuer-group"} }

// ParseProfiles reads the data of the ConfigMap. Its error is all that is wrong with it.
func ParseProfiles(data map[string]string) (*Profiles, error) {
	known := append([]string{ProfilesKey, DistrustKey}, issuerAttributeNames()...)
	var problems problem.List
	found := &Profiles{Issuer: Profile{}, Distrusted: Fingerprints{}}
	for _, key := range slices.Sorted(maps.Keys(data)) {
		switch {
		case len(problems) == problem.Max:
		case key == ProfilesKey:
			if err := found.decode(data[key]); err != nil {
				problems = append(problems, problem.New(key, "%w", err))
			}
		case key == DistrustKey:
			var err error
			found.Distrusted, err = parseDistrust(data[key])
			problems = append(problems, problem.Of(problem.In(key, err))...)
		case slices.Contains(known, key):
			found.Issuer[key] = strings.TrimSpace(data[key])
		default:
			problems = append(problems, problem.New("the key "+message.Quote(key), "is not known: did you mean %s?", problem.Nearest(key, known)))
		}
	}
	problems = append(problems, found.check()...)
	if len(problems) > 0 {
		return nil, problems
	}
	return found, nil
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
			problems = append(problems, fmt.Errorf("%s %s: there is no profile %s", of, message.Quote(user), message.Quote(name)))
		}
	}
	return problems
}

func (p Profile) check() (problems problem.List) {
	rows := map[string]Attribute{}
	for _, a := range table() {
		if !a.OnlyOld && !a.Secret && a.Name != "profile" { // A ConfigMap is no place for passwords.
			rows[a.Name] = a
		}
	}
	size := 0
	for name, value := range p {
		size += len(name) + len(value)
	}
	if size > maxTotal { // A volume's record has its profile.
		return problem.List{fmt.Errorf("it has %d bytes: at most %d", size, maxTotal)}
	}
	standIn := placeholderParser(Defaults{AnyTrustFile: true})
	for _, name := range slices.Sorted(maps.Keys(p)) {
		if len(problems) == problem.Max {
			break
		}
		row, ok := rows[name]
		if !ok && strings.Contains(name, "/") && isForeign(name) {
			problems = append(problems, problem.Of(checkAnnotation(name, p[name]))...)
			continue
		}
		if !ok {
			problems = append(problems, problem.New(message.Quote(name), "is not an attribute of profiles: did you mean %s?",
				problem.Nearest(name, slices.Sorted(maps.Keys(rows)))))
			continue
		}
		value := p[name]
		err := problem.In(name, checkValue(value))
		if err == nil && row.Expanded {
			value, err = standIn.expand(name, value)
		}
		if err == nil {
			if e := row.set(standIn, value); e != nil {
				err = problem.New(name, "%w", e)
			}
		}
		if err != nil {
			problems = append(problems, err)
		}
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

// setProfile chooses the volume's profile. The recorded one counts only where the current profiles are not known.
func (p *parser) setProfile(name string) error {
	live := p.defaults.Live
	if live == nil {
		p.Profile = p.asked.Profile
		if name != "" && p.Profile == nil {
			return fmt.Errorf("is %s, and this driver has no profiles: its operator sets --config-map", message.Quote(name))
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
		for _, row := range issuerAttributeNames() {
			p.Profile[row] = live.Issuer[row]
		}
	}
	if p.Profile == nil { // Nothing applies any more: the volume stays as it was.
		p.Profile = p.asked.Profile
	}
	return nil
}

// annotateByProfile gives the request the profile's annotations, where the pod gives none of that name.
func (p *parser) annotateByProfile() {
	for key, value := range p.Profile {
		if _, given := p.Annotations[key]; !given && strings.Contains(key, "/") {
			p.annotate(key, value)
		}
	}
}

// profileValue returns the profile's value of an attribute, if it counts: where the pod gives one attribute of a
// group, the profile's values of that group do not.
func (p *parser) profileValue(a Attribute) string {
	for _, group := range [][]string{
		issuerAttributeNames(), {"key-algorithm", "key-size", "key-encoding"},
		{"fs-group", "gid"}, {"renew", "renew-before", "renew-window"},
	} {
		if slices.Contains(group, a.Name) && slices.ContainsFunc(group, p.isSet) {
			return ""
		}
	}
	return p.Profile[a.Name]
}
