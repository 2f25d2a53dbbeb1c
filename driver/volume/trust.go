package volume

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// SourceKind is the kind of a [Source], by the word of the attribute.
type SourceKind string

// The kinds of sources.
const (
	IssuerSource    SourceKind = "issuer"               // What the issuer returns with a certificate.
	BundleSource    SourceKind = "cluster-trust-bundle" // A ClusterTrustBundle, or all of a signer.
	ConfigMapSource SourceKind = "config-map"           // A key of a ConfigMap in the pod's namespace.
	FileSource      SourceKind = "file"                 // A file that the driver's operator names.
)

// A Source is one place that the CA certificates of a volume come from. Sources that are equal have the same certificates.
type Source struct {
	Kind      SourceKind
	Namespace string // Of a ConfigMap.
	Name      string // Of the object or file; empty for all bundles of a signer.
	Key       string // Of a ConfigMap.
	Signer    string // Of bundles without a name.
	Labels    string // That bundles of the signer have: key=value, in order, with & between them; empty: all of the signer's.
}

// String is the source in the words of the attribute.
func (s Source) String() string {
	text := string(s.Kind)
	switch {
	case s.Kind == IssuerSource:
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

// trust reads the sources of the CA certificates. One that is named twice counts once.
func (p *parser) trust(value string) error {
	if value == "" {
		value = p.defaults.trust()
	}
	words := list(value)
	if len(words) == 0 {
		return namesNothing(value)
	}
	if err := checkCount(len(words), maxSources, "sources"); err != nil {
		return err
	}
	p.Trust = nil
	return p.each(value, words, func(word string) error {
		source, err := p.source(word)
		if err != nil {
			return fmt.Errorf("has %s: %w", quote(word), err)
		}
		if !slices.Contains(p.Trust, source) {
			p.Trust = append(p.Trust, source)
		}
		return nil
	})
}

const sourceKinds = "issuer, cluster-trust-bundle:<name or signer>, config-map:<name>/<key> and file:<name>"

// trust is what volumes get that do not say.
func (d Defaults) trust() string {
	if d.Trust == "" {
		return string(IssuerSource)
	}
	return d.Trust
}

// source is what one word of the attribute means.
func (p *parser) source(word string) (Source, error) {
	if len(word) > maxSource {
		return Source{}, fmt.Errorf("%d bytes, at most %d", len(word), maxSource)
	}
	kind, rest, _ := strings.Cut(word, ":")
	switch SourceKind(kind) {
	case IssuerSource:
		if word != kind {
			return Source{}, errors.New("issuer stands alone, without a name")
		}
		return Source{Kind: IssuerSource}, nil
	case BundleSource:
		return bundles(rest)
	case ConfigMapSource:
		return configMap(p.Pod.Namespace, rest)
	case FileSource:
		return p.file(rest)
	}
	return Source{}, fmt.Errorf("known are %s", sourceKinds)
}

func configMap(namespace, rest string) (Source, error) {
	name, key, _ := strings.Cut(rest, "/")
	if key == "" {
		return Source{}, errors.New("it lacks the key: config-map:<name>/<key>")
	}
	if err := valid("the ConfigMap's name", name, validation.IsDNS1123Subdomain); err != nil {
		return Source{}, err
	}
	if err := valid("the key", key, validation.IsConfigMapKey); err != nil {
		return Source{}, err
	}
	return Source{Kind: ConfigMapSource, Namespace: namespace, Name: name, Key: key}, nil
}

func (p *parser) file(name string) (Source, error) {
	if err := valid("the file's name", name, validation.IsDNS1123Label); err != nil {
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

// bundles are one ClusterTrustBundle by its name, or by their signer, which has a slash as no name has, and by labels.
func bundles(rest string) (Source, error) {
	signer, labels, selects := strings.Cut(rest, "?")
	if !strings.Contains(signer, "/") {
		if selects {
			return Source{}, errors.New("labels go with a signer, such as example.org/ca?tier=web, not with the name of a bundle")
		}
		return Source{Kind: BundleSource, Name: rest}, bundleName(rest)
	}
	if err := signerName(strings.Split(signer, "/")); err != nil {
		return Source{}, err
	}
	canonical, err := selector(labels, selects)
	return Source{Kind: BundleSource, Signer: signer, Labels: canonical}, err
}

// bundleName demands a name that a ClusterTrustBundle may have: with colons, it is that of its signer, with a colon for the slash, and one of its own
// (kubernetes pkg/apis/certificates/validation/validation.go, ValidateClusterTrustBundleName).
func bundleName(name string) error {
	parts := strings.Split(name, ":")
	if len(parts) == 3 {
		if err := signerName(parts[:2]); err != nil {
			return err
		}
		parts = parts[2:]
	}
	if len(parts) != 1 {
		return errors.New("the bundle's name has another number of colons than none, or two as in example.org:ca:name")
	}
	return valid("the bundle's name", parts[0], validation.IsDNS1123Subdomain)
}

// signerName demands a domain and a path (kubernetes pkg/apis/certificates/validation/validation.go, ValidateSignerName).
func signerName(parts []string) error {
	if len(parts) != 2 || !strings.Contains(parts[0], ".") {
		return errors.New("a signer's name is a domain with a dot, a slash and a path, such as example.org/ca")
	}
	if err := valid("the signer's domain", parts[0], validation.IsDNS1123Subdomain); err != nil {
		return err
	}
	return valid("the signer's path", parts[1], validation.IsDNS1123Subdomain)
}

// selector is labels in their canonical form.
func selector(text string, given bool) (string, error) {
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
			return "", fmt.Errorf("%s is no label: key=value, with & between several", quote(pair))
		}
		if err := valid("the label's key", key, validation.IsQualifiedName); err != nil {
			return "", err
		}
		if err := valid("the label's value", value, validation.IsValidLabelValue); err != nil {
			return "", err
		}
		if key == last {
			return "", fmt.Errorf("the label %s can't have two values", key)
		}
		last = key
	}
	return strings.Join(pairs, "&"), nil
}

// valid puts the first of what a check of Kubernetes says in an error, without its example and regular expression.
func valid(what, text string, check func(string) []string) error {
	if problems := check(text); len(problems) > 0 {
		reason, _, _ := strings.Cut(problems[0], " (e.g.")
		return fmt.Errorf("%s is %s: %s", what, quote(text), reason)
	}
	return nil
}
