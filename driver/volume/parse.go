package volume

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/mayfly-csi/mayfly/signer"
)

// The keys that the kubelet sets with podInfoOnMount (kubernetes pkg/volume/csi/csi_mounter.go), and no pod can:
// the kubelet's own overwrite a pod's.
const (
	kubeletPrefix      = "csi.storage.k8s.io/"
	podName            = kubeletPrefix + "pod.name"
	podNamespace       = kubeletPrefix + "pod.namespace"
	podUID             = kubeletPrefix + "pod.uid"
	serviceAccountName = kubeletPrefix + "serviceAccount.name"
	ephemeral          = kubeletPrefix + "ephemeral"
	// Tokens is the key of the pod's service account tokens. It is a secret: [Asked] never has it.
	Tokens = kubeletPrefix + "serviceAccount.tokens"
)

// Defaults are what the driver's operator sets for volumes that do not say.
type Defaults struct {
	IssuerName  string // Empty: a volume must name its issuer.
	IssuerKind  string // Of that issuer; empty: Issuer.
	IssuerGroup string // Of that issuer; empty: cert-manager.io.
	TrustDomain string // Of SPIFFE IDs; empty: no volume may ask for one.
	SPIFFEPath  string // Of SPIFFE IDs, with variables; empty: StandardSPIFFEPath.

	Trust        string   // The sources of CA certificates, in the words of the attribute; empty: the issuer.
	TrustFiles   []string // The names of the files that may be sources.
	AnyTrustFile bool     // Those are not checked: for a volume that was understood when the driver had other files.
}

// Check says what no volume could do with the defaults.
func (d Defaults) Check() error {
	p := &parser{defaults: d}
	p.Pod = signer.Pod{Namespace: "namespace", Name: "pod", UID: "uid", ServiceAccount: "account"}
	if err := p.trust(""); err != nil {
		return fmt.Errorf("the trust of volumes that do not say %w", err)
	}
	if d.TrustDomain == "" {
		return nil
	}
	if strings.ContainsAny(d.TrustDomain, ":/") {
		return fmt.Errorf("%q is not the name of a trust domain", d.TrustDomain)
	}
	_, err := p.spiffeID()
	return err
}

// StandardSPIFFEPath is the path that Istio and cert-manager's csi-driver-spiffe give to SPIFFE IDs.
const StandardSPIFFEPath = "/ns/${POD_NAMESPACE}/sa/${SERVICE_ACCOUNT_NAME}"

// Problems are all that is wrong with a volume, each a sentence that names its attribute.
type Problems []error

// Error is all problems in one line: the line is read in `kubectl describe pod`.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, err := range p {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "; ")
}

// Unwrap are the problems.
func (p Problems) Unwrap() []error { return p }

func problem(key, format string, args ...any) error {
	return fmt.Errorf("%s "+format, append([]any{key}, args...)...)
}

// parser is the volume under construction.
type parser struct {
	Volume
	old      bool // The pod speaks the old driver's dialect.
	defaults Defaults

	layouts                          []string
	caFile, certificateFile, keyFile string
	pkcs12File                       string
	pkcs12                           bool // The old driver's way to ask for the keystore.
	pkcs12Password, secretPassword   string
	secrets                          bool // The call came with a Secret.
	mesh                             bool // The volume is of csi-driver-spiffe's name.
	spiffe                           bool
	gidGiven                         *int
	fsGroupGiven                     bool
}

// Parse is the volume that was asked for. Its error is [Problems]: everything that is wrong, not only the first.
func Parse(asked Asked, defaults Defaults) (Volume, error) {
	problems := translate(&asked)
	p := &parser{old: asked.Driver == OldDriver || usesOldPrefix(asked.Attributes), defaults: defaults}
	p.mesh = asked.Driver == SPIFFEDriver
	p.ID, p.Target = asked.ID, asked.Target
	p.secretPassword, p.secrets = asked.Password, asked.Secrets
	problems = append(problems, p.pod(asked.Attributes)...)
	problems = append(problems, p.others(asked.Attributes)...)
	problems = append(problems, p.attributes(asked.Attributes)...)
	problems = append(problems, p.mountGroup(asked.Group)...)
	problems = append(problems, p.mountFlags(asked.MountFlags)...)
	if len(problems) == 0 {
		problems = p.together()
	}
	if len(problems) > 0 {
		return Volume{}, problems
	}
	if p.mesh {
		p.Annotations = map[string]string{SPIFFEDriver + "/identity": p.URIs[0].String()}
	}
	return p.Volume, nil
}

func usesOldPrefix(attributes map[string]string) bool {
	for key := range attributes {
		if strings.HasPrefix(key, OldPrefix) {
			return true
		}
	}
	return false
}

// pod takes the pod's identity from the kubelet's keys.
func (p *parser) pod(attributes map[string]string) (problems Problems) {
	p.Pod = signer.Pod{
		Namespace: attributes[podNamespace], Name: attributes[podName],
		UID: attributes[podUID], ServiceAccount: attributes[serviceAccountName],
	}
	for _, key := range []string{podName, podNamespace, podUID, serviceAccountName} {
		if attributes[key] == "" {
			problems = append(problems, problem(key, "is missing: the CSIDriver object needs podInfoOnMount: true"))
		}
	}
	if attributes[ephemeral] != "true" {
		problems = append(problems, problem(ephemeral, "is not true: only inline (ephemeral) volumes are served, not persistent ones"))
	}
	return problems
}

// attributes sets each attribute to what was given, or to its default.
func (p *parser) attributes(attributes map[string]string) (problems Problems) {
	for _, a := range Attributes() {
		key, value, err := a.given(attributes)
		if err == nil && a.Expanded {
			value, err = p.expand(key, value)
		}
		if err == nil && value == "" {
			value = a.standard(p.old)
		}
		if err == nil {
			if e := a.set(p, value); e != nil {
				err = problem(p.spoken(a, key), "%w", e)
			}
		}
		if err != nil {
			problems = append(problems, err)
		}
	}
	return problems
}

// spoken is an attribute's key in the words of the pod's author.
func (p *parser) spoken(a Attribute, key string) string {
	switch {
	case p.mesh:
		return SPIFFEDriver + "/" + a.Name
	case p.old && a.Old && key == Prefix+a.Name:
		return OldPrefix + a.Name
	}
	return key
}

// expand replaces ${NAME} and $NAME.
func (p *parser) expand(key, value string) (string, error) {
	variables := map[string]string{
		"POD_NAME": p.Pod.Name, "POD_NAMESPACE": p.Pod.Namespace,
		"POD_UID": p.Pod.UID, "SERVICE_ACCOUNT_NAME": p.Pod.ServiceAccount,
	}
	var err error
	expanded := os.Expand(value, func(name string) string {
		replacement, ok := variables[name]
		if !ok && err == nil {
			err = problem(key, "has an unknown variable %q: known are %s", "${"+name+"}", strings.Join(slices.Sorted(maps.Keys(variables)), ", "))
		}
		return replacement
	})
	return expanded, err
}

// others are the attributes that no row has. Those of other groups become annotations of the request, as the old driver has it; one of a group
// that is much like ours, with a name that is much like one of ours, is a mistake. The kubelet's own keys are not the pod's to set, so they are not
// looked at.
func (p *parser) others(attributes map[string]string) (problems Problems) {
	known := keys()
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		switch {
		case slices.Contains(known, key), strings.HasPrefix(key, kubeletPrefix):
		case !foreign(key, known):
			problems = append(problems, problem(quote(key), "is not a known attribute: did you mean %s?", nearest(key, known)))
		case len(validation.IsQualifiedName(strings.ToLower(key))) > 0:
			problems = append(problems, problem(quote(key), "can't be an annotation of the request: %s", validation.IsQualifiedName(strings.ToLower(key))[0]))
		default:
			if p.Annotations == nil {
				p.Annotations = map[string]string{}
			}
			p.Annotations[key] = attributes[key]
		}
	}
	return problems
}

// foreign reports whether a key is of another group, and not one of ours misspelt.
func foreign(key string, known []string) bool {
	const alike = 3 // Letters that are wrong.
	group, name, qualified := strings.Cut(key, "/")
	switch {
	case !qualified || group == strings.TrimSuffix(Prefix, "/") || group == strings.TrimSuffix(OldPrefix, "/"):
		return false
	case len(key) > longestKey:
		return true
	}
	_, ours, _ := strings.Cut(nearest(key, known), "/")
	for _, prefix := range []string{Prefix, OldPrefix} {
		if levenshtein.Distance(group+"/", prefix, nil) <= alike && levenshtein.Distance(name, ours, nil) <= alike {
			return false
		}
	}
	return true
}

// longestKey is that of a qualified name (k8s.io/apimachinery pkg/util/validation): a DNS subdomain, a slash and a name.
const longestKey = 253 + 1 + 63

// keys are all attributes with their prefixes.
func keys() (keys []string) {
	for _, a := range Attributes() {
		if !a.OnlyOld {
			keys = append(keys, Prefix+a.Name)
		}
		if a.Old {
			keys = append(keys, OldPrefix+a.Name)
		}
	}
	return keys
}

// nearest is the word most like the given one: first by what follows the prefix, then as a whole.
func nearest(word string, words []string) string {
	distance := func(candidate string) int {
		if strings.HasPrefix(base(candidate), base(word)) {
			return levenshtein.Distance(word[:min(len(word), 64)], candidate, nil)
		}
		return 100*levenshtein.Distance(base(word), base(candidate), nil) + levenshtein.Distance(word[:min(len(word), 64)], candidate, nil)
	}
	return slices.MinFunc(words, func(a, b string) int { return distance(a) - distance(b) })
}

// base is what follows the last slash; not more of it than any attribute has, for a distance costs the product of the lengths.
func base(key string) string {
	key = key[strings.LastIndexByte(key, '/')+1:]
	return key[:min(len(key), 64)]
}
