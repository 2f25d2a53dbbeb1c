package spec

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/problem"
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

	AsPod bool // Of volumes that do not say; else none asks as its pod but by a profile.

	// PodCertificates is set where certificates are asked for by PodCertificateRequests, which can't say all that a
	// volume may ask for.
	PodCertificates bool

	Live *Profiles // nil: not known; what a volume's record has of them counts.
}

// Check returns an error for defaults that no volume could use.
func (d Defaults) Check() error {
	if d.TrustDomain == "" {
		return nil
	}
	if strings.ContainsAny(d.TrustDomain, ":/") {
		return fmt.Errorf("%q is not the name of a trust domain", d.TrustDomain)
	}
	p := placeholderParser(d)
	if _, err := p.spiffeID(); err != nil {
		return err
	}
	if p.NeedsIP {
		return errors.New("the path has the pod's IP, which its node may write, and which can change while the pod runs")
	}
	if !tellsNamespaces(cmp.Or(d.SPIFFEPath, StandardSPIFFEPath)) {
		return errors.New("pods of different namespaces would have the same path: one of its elements must be " +
			"${POD_NAMESPACE} or ${POD_UID}, as in " + StandardSPIFFEPath)
	}
	return nil
}

// tellsNamespaces reports whether no two pods of different namespaces have the same path: one element, which no value
// of another variable can lengthen, says which namespace, or which pod.
func tellsNamespaces(path string) bool {
	return slices.ContainsFunc(strings.Split(path, "/"), func(element string) bool {
		var names []string
		os.Expand(element, func(name string) string {
			names = append(names, name)
			return ""
		})
		return len(names) == 1 && (names[0] == "POD_NAMESPACE" || names[0] == "POD_UID")
	})
}

// StandardSPIFFEPath is the path that Istio and cert-manager's csi-driver-spiffe give to SPIFFE IDs.
const StandardSPIFFEPath = "/ns/${POD_NAMESPACE}/sa/${SERVICE_ACCOUNT_NAME}"

// A Reading is what a pod asks for, with what of its attributes is not about the certificate.
type Reading struct {
	Spec
	*Values
	// Others are the keys that are none of an attribute of the certificate in the dialect, sorted; without the kubelet's.
	Others []string
}

// A parser builds a reading.
type parser struct {
	Reading
	asked    Asked
	defaults Defaults
	dialect  *dialect
	spiffe   bool
}

// Placeholder returns a made-up pod, to check values that are for all pods.
func Placeholder() signer.Pod {
	return signer.Pod{Namespace: "namespace", Name: "pod", UID: "uid", ServiceAccount: "account", Node: "node"}
}

// placeholderParser returns a parser with a made-up pod.
func placeholderParser(defaults Defaults) *parser {
	p := &parser{defaults: defaults, dialect: Mayfly.row()}
	p.Pod, p.Dialect, p.Values = Placeholder(), Mayfly, table().Read(Mayfly, nil, nil)
	return p
}

// Parse returns the certificate that was asked for. Attributes that are not about it are none of its business, but for
// those of other dialects. Its error is [problem.List]: everything that is wrong, not only the first.
func Parse(asked Asked, defaults Defaults) (Spec, error) {
	r, problems := Read(asked, defaults)
	if r != nil {
		problems = append(problems, r.foreign()...)
	}
	if len(problems) > 0 {
		return Spec{}, problems
	}
	return r.Spec, nil
}

// foreign returns the problems of attributes that are written in another dialect.
func (r *Reading) foreign() (problems problem.List) {
	for _, key := range r.Others {
		meant, _ := r.Translate(key)
		ours := r.Dialect == Mayfly && strings.HasPrefix(key, OldPrefix)
		if (meant != "" || ours) && len(problems) < problem.Max {
			problems = append(problems, problem.New(message.Quote(key), "is not an attribute of this driver"))
		}
	}
	return problems
}

// Read returns as much of the certificate as is understood, with what is wrong with it, for a caller that knows more
// attributes: nil for a volume that is over the limits.
func Read(asked Asked, defaults Defaults) (*Reading, problem.List) {
	if err := checkTotal(asked.Attributes); err != nil {
		return nil, problem.Of(err)
	}
	p := &parser{asked: asked, defaults: defaults, dialect: asked.dialect().row()}
	p.Dialect = p.dialect.name
	p.Values = table().Read(p.Dialect, asked.Attributes, nil)
	problems := append(p.setPod(asked), p.setAnnotations(asked.Attributes)...)
	p.Pod.Node = cmp.Or(asked.Node, defaults.Node)
	mistakes := p.Set(p.set)
	p.annotateByProfile()
	problems = append(problems, problem.Of(p.checkIssuer())...) // Before the others, as it matters more.
	problems = append(problems, mistakes...)
	return &p.Reading, append(problems, p.checkCombinations()...)
}

// setPod reads the pod's identity from the kubelet's keys.
func (p *parser) setPod(asked Asked) (problems problem.List) {
	p.Pod = asked.Pod()
	for _, key := range []string{podName, podNamespace, podUID, serviceAccountName} {
		if asked.Attributes[key] == "" {
			problems = append(problems, problem.New(key, "is missing: the CSIDriver object needs podInfoOnMount: true"))
		}
	}
	if asked.Attributes[ephemeral] != "true" {
		problems = append(problems, problem.New(ephemeral,
			"is not true: only inline (ephemeral) volumes are served, not persistent ones"))
	}
	return problems
}

// set sets one attribute. key is how the pod's author writes it.
func (p *parser) set(a Attribute, key, value string) (err error) {
	if a.Expanded {
		if value, err = p.expand(key, value); err != nil {
			return err
		}
	}
	return problem.In(key, setters()[a.Name](p, value))
}

// expand replaces ${NAME} and $NAME.
func (p *parser) expand(key, value string) (string, error) {
	if !strings.Contains(value, "$") {
		return value, nil
	}
	// os.Expand drops such a thing without a word, and so does csi-driver.
	if !p.dialect.lenient && unfinished.MatchString(value) {
		return "", problem.New(key, "is %s, with a variable that has no end or no name", message.Quote(value))
	}
	if err := problem.CheckCount(strings.Count(value, "$"), maxElements, "variables"); err != nil {
		return "", problem.In(key, err)
	}
	var err error
	variables, room := p.variables(), maxValue
	expanded := os.Expand(value, func(name string) string {
		replacement, ok := variables[name]
		if !ok && err == nil {
			err = problem.New(key, "has an unknown variable %s: known are %s",
				message.Quote("${"+name+"}"), strings.Join(slices.Sorted(maps.Keys(variables)), ", "))
		}
		if err == nil && name == nodeName && p.Pod.Node == "" {
			err = problem.New(key, "has ${%s}, and the pod is on no node yet", nodeName)
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
		err = problem.New(key, "has more than %d bytes once its variables are replaced", maxValue)
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

// unknownIP stands for the pod's IP where it is not known yet, so that all else can be checked (RFC 5737, TEST-NET-1).
const unknownIP = "192.0.2.1"

// podIPs returns the pod's IPs, the first one first, and notes that the volume needs them.
func (p *parser) podIPs() []string {
	p.NeedsIP = true
	if p.LacksIP = len(p.asked.IPs) == 0; p.LacksIP {
		return []string{unknownIP}
	}
	return p.asked.IPs
}
