package volume

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// A Part is what a file of a volume holds.
type Part string

// The parts. The texts are PEM.
const (
	KeyPart         Part = "the private key"
	ChainPart       Part = "the certificate chain, leaf first"
	CAPart          Part = "the CA certificates"
	BundlePart      Part = "the private key (PKCS#8), then the certificate chain"
	BelowRootPart   Part = "the private key (PKCS#8), then the certificate chain without a root"
	CombinedPart    Part = "the certificate chain, then the private key"
	PKCS12Part      Part = "a PKCS#12 keystore: the private key with its chain"
	PKCS12TrustPart Part = "a PKCS#12 truststore: the CA certificates"
	JKSPart         Part = "a JKS keystore: the private key with its chain"
	JKSTrustPart    Part = "a JKS truststore: the CA certificates"
)

const (
	trustBundleFile = ".spiffe-trust-bundle.x509.pem"
	pkcs12File      = "keystore.p12"
	layoutJKS       = "jks"
)

// A File is one file of a layout.
type File struct {
	Name string
	Part Part
}

// A Layout is a set of files that a volume may offer, for a kind of consumer.
type Layout struct {
	Name    string
	Meaning string // One line of the reference.
	Files   []File // With the names that the pod's attributes may change.

	rename func(p *parser, files []File) ([]File, error)
}

// Layouts returns all layouts, in the order of the reference.
func Layouts() []Layout {
	return []Layout{
		{
			Name: "pem", Meaning: "Three files, whose names `certificate-file`, `privatekey-file` and `ca-file` change.",
			Files:  []File{{"tls.crt", ChainPart}, {"tls.key", KeyPart}, {"ca.crt", CAPart}},
			rename: pemNames,
		}, {
			Name: "bundle", Meaning: "One file, so always a matching pair.",
			Files: []File{{"credential-bundle.pem", BundlePart}},
		}, {
			Name: "combined", Meaning: "One file, as HAProxy reads it.",
			Files: []File{{"combined.pem", CombinedPart}},
		}, {
			Name: "istio", Meaning: "What Istio's agent looks for in `/var/run/secrets/workload-spiffe-credentials`.",
			Files: []File{{"cert-chain.pem", ChainPart}, {"key.pem", KeyPart}, {"root-cert.pem", CAPart}},
		}, {
			Name: "gke", Meaning: "The names of GKE's workload certificates, which Istio's agent knows, too.",
			Files: []File{{"certificates.pem", ChainPart}, {"private_key.pem", KeyPart}, {"ca_certificates.pem", CAPart}},
		}, {
			Name: "spiffe",
			Meaning: "SPIFFE's draft for files (spiffe/spiffe#376). The volume needs a SPIFFE ID; its trust domain is " +
				"part of a name.",
			Files: []File{
				{"credential-bundle.private-key.x509.pem", BelowRootPart}, {"<trust domain>" + trustBundleFile, CAPart},
			},
			rename: spiffeNames,
		}, {
			Name: "pkcs12",
			Meaning: "Java's stores, and those of whoever else reads PKCS#12. " +
				"`pkcs12-filename` changes the name of the first.",
			Files:  []File{{pkcs12File, PKCS12Part}, {"truststore.p12", PKCS12TrustPart}},
			rename: pkcs12Names,
		}, {
			Name: layoutJKS, Meaning: "Java's stores in their old format.",
			Files: []File{{"keystore.jks", JKSPart}, {"truststore.jks", JKSTrustPart}},
		},
	}
}

func pemNames(p *parser, _ []File) ([]File, error) {
	return []File{{p.certificateFile, ChainPart}, {p.keyFile, KeyPart}, {p.caFile, CAPart}}, nil
}

func pkcs12Names(p *parser, files []File) ([]File, error) {
	return []File{{p.pkcs12File, PKCS12Part}, files[1]}, nil
}

func spiffeNames(p *parser, files []File) ([]File, error) {
	for _, uri := range p.URIs {
		if id, err := spiffeid.FromURI(uri); err == nil {
			name := id.TrustDomain().Name() + trustBundleFile
			if err := fileName(&name, name, false); err != nil {
				return nil, problem.New(p.KeyOf("layout"), "has spiffe, and the file of the trust domain %w", err)
			}
			return []File{files[0], {name, CAPart}}, nil
		}
	}
	return nil, problem.New(p.KeyOf("layout"), "has spiffe, which needs a SPIFFE ID: set spiffe or uri-sans")
}

func (p *parser) setLayout(value string) error {
	names := spec.List(value)
	if len(names) == 0 {
		return spec.EmptyList(value)
	}
	return p.Dialect.Each(value, names, func(name string) error {
		if !slices.ContainsFunc(Layouts(), func(l Layout) bool { return l.Name == name }) {
			return fmt.Errorf("has %s: known are %s", message.Quote(name), layoutNames())
		}
		p.layouts = append(p.layouts, name)
		return nil
	})
}

func layoutNames() string {
	var names []string
	for _, l := range Layouts() {
		names = append(names, l.Name)
	}
	return strings.Join(names, ", ")
}

// setFiles sets the volume's files by its layouts. Two contents for one name are an error; the same content in two
// layouts is not.
func (p *parser) setFiles() error {
	p.Files = map[string]Part{}
	for _, layout := range Layouts() {
		if !slices.Contains(p.layouts, layout.Name) {
			continue
		}
		files, err := layout.Files, error(nil)
		if layout.rename != nil {
			files, err = layout.rename(p, files)
		}
		for _, f := range files {
			err = cmp.Or(err, p.addFile(f))
		}
		if err != nil {
			return err
		}
	}
	if p.pkcs12 { // The keystore that csi-driver knows.
		if err := p.addFile(File{p.pkcs12File, PKCS12Part}); err != nil {
			return err
		}
	}
	return p.checkFileNames()
}

// addFile adds a file. Where another one has its name, the error names the attribute that gave it.
func (p *parser) addFile(f File) error {
	other, taken := p.Files[f.Name]
	p.Files[f.Name] = f.Part
	if !taken || other == f.Part {
		return nil
	}
	key := p.KeyOf("layout")
	for _, name := range []string{"ca-file", "certificate-file", "privatekey-file", "pkcs12-filename"} {
		if p.Says(name) == f.Name {
			key = p.KeyOf(name)
		}
	}
	return problem.New(key, "gives two files the name %s: %s, and %s", message.Quote(f.Name), other, f.Part)
}

// checkFileNames checks that each file name that is given is that of a file.
func (p *parser) checkFileNames() error {
	if !slices.Contains(p.layouts, "pem") {
		err := p.unused("layout has no pem, whose file it is", "ca-file", "certificate-file", "privatekey-file")
		if err != nil {
			return err
		}
	}
	if !p.IsSet("pkcs12-enable") && !slices.Contains(p.layouts, "pkcs12") {
		return p.unused("layout has no pkcs12, whose file it is", "pkcs12-filename")
	}
	return nil
}

// unused returns an error for each attribute that is given and has no effect.
func (p *parser) unused(reason string, names ...string) error {
	var problems problem.List
	for _, name := range names {
		if p.IsSet(name) {
			problems = append(problems, problem.New(p.KeyOf(name), "is given, and %s", reason))
		}
	}
	return problems.Err()
}
