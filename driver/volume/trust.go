package volume

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// SourceKind is the kind of a [Source], by the word of the attribute.
type SourceKind string

// The kinds of sources.
const (
	IssuerSource    SourceKind = "issuer"               // What the issuer returns with a certificate.
	BundleSource    SourceKind = "cluster-trust-bundle" // A ClusterTrustBundle, or all of a signer.
	ConfigMapSource SourceKind = "config-map"           // A key of a ConfigMap in the pod's namespace.
	FileSource      SourceKind = "file"                 // A file that the driver's operator names.
	PublicSource    SourceKind = "public"               // The CAs of the public web.
)

// A Source is one place that the CA certificates of a volume come from. Equal sources have the same certificates.
type Source struct {
	Kind      SourceKind
	Namespace string // Of a ConfigMap.
	Name      string // Of the object or file; empty for all bundles of a signer.
	Key       string // Of a ConfigMap.
	Signer    string // Of bundles without a name.
	// Labels are those of the signer's bundles: key=value, in order, with & between them; empty: all bundles.
	Labels string
}

// String returns the source as the attribute writes it.
func (s Source) String() string {
	text := string(s.Kind)
	switch {
	case s.Kind == IssuerSource, s.Kind == PublicSource:
		return text
	case s.Kind == ConfigMapSource:
		return text + ":" + s.Name + "/" + s.Key
	case s.Signer != "" && s.Labels != "":
		return text + ":" + s.Signer + "?" + s.Labels
	case s.Signer != "":
		return text + ":" + s.Signer
	}
	return text + ":" + s.Name
}

const (
	maxSources = 16 // Each is watched.
	// maxSource is more bytes than any name, signer or selector of a few labels has.
	maxSource = 1024
)

// setTrust parses the sources of the CA certificates. One that is named twice counts once.
func (p *parser) setTrust(value string) error {
	if value == "" {
		value = p.defaults.trust()
	}
	words := spec.List(value)
	if len(words) == 0 {
		return spec.EmptyList(value)
	}
	if err := problem.CheckCount(len(words), maxSources, "sources"); err != nil {
		return err
	}
	p.Trust = nil
	return p.Dialect.Each(value, words, func(word string) error {
		source, err := p.parseSource(word)
		if err != nil {
			return fmt.Errorf("has %s: %w", message.Quote(word), err)
		}
		if !slices.Contains(p.Trust, source) {
			p.Trust = append(p.Trust, source)
		}
		return nil
	})
}

const sourceKinds = "issuer, public, cluster-trust-bundle:<name or signer>, config-map:<name>/<key> and file:<name>"

// trust returns the sources of volumes that name none.
func (d Defaults) trust() string {
	if d.Trust == "" {
		return string(IssuerSource)
	}
	return d.Trust
}

// parseSource parses one source.
func (p *parser) parseSource(word string) (Source, error) {
	if len(word) > maxSource {
		return Source{}, fmt.Errorf("%d bytes, at most %d", len(word), maxSource)
	}
	kind, rest, _ := strings.Cut(word, ":")
	switch SourceKind(kind) {
	case IssuerSource, PublicSource:
		if word != kind {
			return Source{}, fmt.Errorf("%s stands alone, without a name", kind)
		}
		return Source{Kind: SourceKind(kind)}, nil
	case BundleSource:
		return parseBundle(rest)
	case ConfigMapSource:
		return parseConfigMap(p.Pod.Namespace, rest)
	case FileSource:
		return p.parseFile(rest)
	}
	return Source{}, fmt.Errorf("known are %s", sourceKinds)
}

func parseConfigMap(namespace, rest string) (Source, error) {
	name, key, _ := strings.Cut(rest, "/")
	if key == "" {
		return Source{}, errors.New("it lacks the key: config-map:<name>/<key>")
	}
	if err := validate("the ConfigMap's name", name, validation.IsDNS1123Subdomain); err != nil {
		return Source{}, err
	}
	if err := validate("the key", key, validation.IsConfigMapKey); err != nil {
		return Source{}, err
	}
	return Source{Kind: ConfigMapSource, Namespace: namespace, Name: name, Key: key}, nil
}

func (p *parser) parseFile(name string) (Source, error) {
	if err := validate("the file's name", name, validation.IsDNS1123Label); err != nil {
		return Source{}, fmt.Errorf("%w; it is one of those that --trust-file gives, not a path", err)
	}
	switch known := p.defaults.TrustFiles; {
	case p.defaults.AnyTrustFile, slices.Contains(known, name):
		return Source{Kind: FileSource, Name: name}, nil
	case len(known) == 0:
		return Source{}, errors.New("this driver has no files of CA certificates: its operator sets --trust-file")
	default:
		return Source{}, fmt.Errorf("the files of this driver are %s", strings.Join(known, ", "))
	}
}

// parseBundle parses the name of a ClusterTrustBundle, or a signer, which has a slash as no name has, and labels.
func parseBundle(rest string) (Source, error) {
	signer, labels, selects := strings.Cut(rest, "?")
	if !strings.Contains(signer, "/") {
		if selects {
			return Source{}, errors.New(
				"labels go with a signer, such as example.org/ca?tier=web, not with the name of a bundle")
		}
		return Source{Kind: BundleSource, Name: rest}, checkBundleName(rest)
	}
	if err := checkSignerName(strings.Split(signer, "/")); err != nil {
		return Source{}, err
	}
	canonical, err := canonicalLabels(labels, selects)
	return Source{Kind: BundleSource, Signer: signer, Labels: canonical}, err
}

// checkBundleName checks the name of a ClusterTrustBundle. One with colons is that of its signer, with a colon for
// the slash, and a name (kubernetes pkg/apis/certificates/validation/validation.go,
// ValidateClusterTrustBundleName).
func checkBundleName(name string) error {
	parts := strings.Split(name, ":")
	if len(parts) == 3 {
		if err := checkSignerName(parts[:2]); err != nil {
			return err
		}
		parts = parts[2:]
	}
	if len(parts) != 1 {
		return errors.New("the bundle's name has another number of colons than none, or two as in example.org:ca:name")
	}
	return validate("the bundle's name", parts[0], validation.IsDNS1123Subdomain)
}

// checkSignerName checks a domain and a path (kubernetes pkg/apis/certificates/validation/validation.go,
// ValidateSignerName).
func checkSignerName(parts []string) error {
	if len(parts) != 2 || !strings.Contains(parts[0], ".") {
		return errors.New("a signer's name is a domain with a dot, a slash and a path, such as example.org/ca")
	}
	if err := validate("the signer's domain", parts[0], validation.IsDNS1123Subdomain); err != nil {
		return err
	}
	return validate("the signer's path", parts[1], validation.IsDNS1123Subdomain)
}

// canonicalLabels sorts and checks labels.
func canonicalLabels(text string, given bool) (string, error) {
	if !given {
		return "", nil
	}
	pairs := strings.Split(text, "&")
	slices.Sort(pairs)
	pairs = slices.Compact(pairs)
	last := ""
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return "", fmt.Errorf("%s is no label: key=value, with & between several", message.Quote(pair))
		}
		if err := validate("the label's key", key, validation.IsQualifiedName); err != nil {
			return "", err
		}
		if err := validate("the label's value", value, validation.IsValidLabelValue); err != nil {
			return "", err
		}
		if key == last {
			return "", fmt.Errorf("the label %s can't have two values", key)
		}
		last = key
	}
	return strings.Join(pairs, "&"), nil
}

// validate runs a check of Kubernetes, and returns its first error without example and regular expression.
func validate(what, text string, check func(string) []string) error {
	if problems := check(text); len(problems) > 0 {
		reason, _, _ := strings.Cut(problems[0], " (e.g.")
		return fmt.Errorf("%s is %s: %s", what, message.Quote(text), reason)
	}
	return nil
}
