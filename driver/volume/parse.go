package volume

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

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

// kubeletKeys returns those that the kubelet sets with podInfoOnMount.
func kubeletKeys() []string {
	return []string{podName, podNamespace, podUID, serviceAccountName, ephemeral}
}

// Defaults are what the driver's operator sets for volumes that do not say.
type Defaults struct {
	IssuerName  string // Empty: a volume must name its issuer.
	IssuerKind  string // Of that issuer; empty: Issuer.
	IssuerGroup string // Of that issuer; empty: cert-manager.io.
	TrustDomain string // Of SPIFFE IDs; empty: no volume may ask for one.
	SPIFFEPath  string // Of SPIFFE IDs, with variables; empty: StandardSPIFFEPath.
	Node        string // Of all pods; empty: each volume says.

	Gates         []Gate // Of all volumes, besides their own.
	StartsWithout bool   // Of volumes that do not say.
	AsPod         bool   // Of volumes that do not say; else none asks as its pod but by a profile.

	SELinuxContext string // Of volumes for which the kubelet sends none.

	// PodCertificates is set where certificates are asked for by PodCertificateRequests, which can't say all that a
	// volume may ask for.
	PodCertificates bool

	Live         *Profiles // nil: not known; what a volume's record has of them counts.
	Trust        string    // The sources of CA certificates, in the words of the attribute; empty: the issuer.
	TrustFiles   []string  // The names of the files that may be sources.
	AnyTrustFile bool      // Those are not checked: for a volume that was understood when the driver had other files.
}

// Check returns an error for defaults that no volume could use.
func (d Defaults) Check() error {
	p := placeholderParser(d)
	if err := p.setTrust(""); err != nil {
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

// A parser builds a volume.
type parser struct {
	Volume
	asked    Asked
	defaults Defaults
	dialect  *dialect
	inputs   map[string]input // By the attribute's name.

	layouts                          []string
	caFile, certificateFile, keyFile string
	pkcs12File                       string
	pkcs12                           bool // csi-driver's way to ask for the keystore.
	pkcs12Password                   string
	spiffe                           bool
	gidGiven                         *int
	fsGroupGiven                     bool
}

// placeholderParser returns a parser with a made-up pod, to check values that are for all pods.
func placeholderParser(defaults Defaults) *parser {
	p := &parser{defaults: defaults, dialect: Mayfly.row()}
	p.Pod = signer.Pod{Namespace: "namespace", Name: "pod", UID: "uid", ServiceAccount: "account", Node: "node"}
	return p
}

// An input is what the pod says of an attribute.
type input struct {
	key, value string // As the pod's author writes it, or its name if no pod can; the value is empty if it is absent.
	wrong      bool
}

// Parse returns the volume that was asked for. Its error is [Problems]: everything that is wrong, not only the
// first.
func Parse(asked Asked, defaults Defaults) (Volume, error) {
	p, problems := parse(asked, defaults)
	if len(problems) > 0 {
		return Volume{}, problems
	}
	return p.Volume, nil
}

// parse returns as much of the volume as is understood, with what is wrong: nothing of one that is over the limits.
func parse(asked Asked, defaults Defaults) (*parser, Problems) {
	p := &parser{asked: asked, defaults: defaults, dialect: asked.dialect().row(), inputs: map[string]input{}}
	if err := cmp.Or(checkTotal(asked.Attributes), checkFlags(asked.MountFlags)); err != nil {
		return p, problemsOf(err)
	}
	p.ID, p.Target, p.Dialect = asked.ID, asked.Target, p.dialect.name
	problems := p.setPod(asked.Attributes)
	problems = append(problems, p.setAnnotations(asked.Attributes)...)
	p.Pod.Node = cmp.Or(asked.Node, defaults.Node)
	mistakes := p.setAttributes(asked.Attributes)
	p.annotateByProfile()
	problems = append(problems, problemsOf(p.checkIssuer())...) // Before the others, as it matters more.
	problems = append(problems, mistakes...)
	problems = append(problems, p.setMountGroup(asked.Group)...)
	problems = append(problems, p.setMountFlags(asked.MountFlags)...)
	return p, append(problems, p.checkCombinations()...)
}

// setPod reads the pod's identity from the kubelet's keys.
func (p *parser) setPod(attributes map[string]string) (problems Problems) {
	p.Pod = PodOf(Asked{Attributes: attributes})
	for _, key := range []string{podName, podNamespace, podUID, serviceAccountName} {
		if attributes[key] == "" {
			problems = append(problems, problem(key, "is missing: the CSIDriver object needs podInfoOnMount: true"))
		}
	}
	if attributes[ephemeral] != "true" {
		problems = append(problems, problem(ephemeral,
			"is not true: only inline (ephemeral) volumes are served, not persistent ones"))
	}
	return problems
}

// setAttributes sets each attribute to what was given, or to what its profile says, or to its default.
func (p *parser) setAttributes(attributes map[string]string) (problems Problems) {
	for i, a := range table() {
		given := input{key: a.Name, wrong: p.inputs[a.Name].wrong}
		if key := p.dialect.keys[i]; key != "" {
			given.key, given.value = key, a.trim(attributes[key])
		}
		if !utf8.ValidString(given.value) {
			given.wrong = true
			problems = append(problems, problem(given.key, "is not valid UTF-8"))
		}
		p.inputs[a.Name] = given
	}
	for i, a := range table() {
		given := p.inputs[a.Name]
		if given.wrong {
			continue
		}
		err := p.setAttribute(a, given, p.dialect.standards[i])
		given.wrong = err != nil
		p.inputs[a.Name] = given
		problems = append(problems, problemsOf(err)...)
	}
	return problems
}

// setAttribute sets one attribute: to its standard value, if nobody gives one.
func (p *parser) setAttribute(a Attribute, given input, standard string) (err error) {
	key, value := given.key, given.value
	if profiled := p.profileValue(a); value == "" && profiled != "" {
		key, value = key+" (of the profile)", profiled
	}
	if err := checkValue(value); err != nil {
		return withKey(key, err)
	}
	if a.Expanded {
		if value, err = p.expand(key, value); err != nil {
			return err
		}
	}
	return withKey(key, a.set(p, cmp.Or(value, standard)))
}

// keyOf returns an attribute's key as the pod's author writes it.
func (p *parser) keyOf(name string) string { return p.inputs[name].key }

// canGive reports whether a pod can give an attribute in this dialect.
func (p *parser) canGive(name string) bool { return p.keyOf(name) != name }

// isSet reports whether the pod says something of an attribute.
func (p *parser) isSet(name string) bool { return p.inputs[name].value != "" }

// expand replaces ${NAME} and $NAME.
func (p *parser) expand(key, value string) (string, error) {
	if !strings.Contains(value, "$") {
		return value, nil
	}
	// os.Expand drops such a thing without a word, and so does csi-driver.
	if !p.dialect.lenient && unfinished.MatchString(value) {
		return "", problem(key, "is %s, with a variable that has no end or no name", quote(value))
	}
	if err := checkCount(strings.Count(value, "$"), maxElements, "variables"); err != nil {
		return "", withKey(key, err)
	}
	var err error
	variables, room := p.variables(), maxValue
	expanded := os.Expand(value, func(name string) string {
		replacement, ok := variables[name]
		if !ok && err == nil {
			err = problem(key, "has an unknown variable %s: known are %s",
				quote("${"+name+"}"), strings.Join(slices.Sorted(maps.Keys(variables)), ", "))
		}
		if err == nil && name == nodeName && p.Pod.Node == "" {
			err = problem(key, "has ${%s}, and the pod is on no node yet", nodeName)
		}
		if err != nil {
			return ""
		}
		text := replacement()
		if room -= len(text); room < 0 {
			return ""
		}
		return text
	})
	if err == nil && (room < 0 || len(expanded) > maxValue) {
		err = problem(key, "has more than %d bytes once its variables are replaced", maxValue)
	}
	return expanded, err
}

var unfinished = regexp.MustCompile(`\$\{(\}|[^}]*$)`)

// nodeName is the variable that stands for the pod's node.
const nodeName = "NODE_NAME"

func (p *parser) variables() map[string]func() string {
	return map[string]func() string{
		nodeName:   func() string { return p.Pod.Node },
		"POD_NAME": func() string { return p.Pod.Name }, "POD_NAMESPACE": func() string { return p.Pod.Namespace },
		"POD_UID": func() string { return p.Pod.UID }, "SERVICE_ACCOUNT_NAME": func() string { return p.Pod.ServiceAccount },
		"POD_IP": func() string { return p.podIPs()[0] }, "POD_IPS": func() string { return strings.Join(p.podIPs(), ",") },
	}
}
