package volume

import (
	"fmt"

	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// Defaults are what the driver's operator sets for volumes that do not say.
type Defaults struct {
	spec.Defaults

	Gates         []Gate // Of all volumes, besides their own.
	StartsWithout bool   // Of volumes that do not say.

	SELinuxContext string // Of volumes for which the kubelet sends none.

	Trust        string   // The sources of CA certificates, in the words of the attribute; empty: the issuer.
	TrustFiles   []string // The names of the files that may be sources.
	AnyTrustFile bool     // Those are not checked: for a volume that was understood when the driver had other files.
}

// Check returns an error for defaults that no volume could use.
func (d Defaults) Check() error {
	if err := placeholderParser(d).setTrust(""); err != nil {
		return fmt.Errorf("the trust of volumes that do not say %w", err)
	}
	return d.Defaults.Check()
}

// A parser builds a volume.
type parser struct {
	Volume
	*spec.Values // Of the attributes that are not about the certificate.

	certificate *spec.Reading
	asked       Asked
	defaults    Defaults

	layouts                          []string
	caFile, certificateFile, keyFile string
	pkcs12File                       string
	pkcs12                           bool // csi-driver's way to ask for the keystore.
	pkcs12Password                   string
	gidGiven                         *int
	fsGroupGiven                     bool
}

// placeholderParser returns a parser with a made-up pod, to check values that are for all pods.
func placeholderParser(defaults Defaults) *parser {
	p := &parser{defaults: defaults, Values: table().Read(spec.Mayfly, nil, nil)}
	p.Pod = spec.Placeholder()
	return p
}

// Parse returns the volume that was asked for. Its error is [problem.List]: everything that is wrong, not only the
// first.
func Parse(asked Asked, defaults Defaults) (Volume, error) {
	if err := checkFlags(asked.MountFlags); err != nil {
		return Volume{}, problem.Of(err)
	}
	certificate, wrong := spec.Read(asked.Asked, defaults.Defaults)
	if certificate == nil {
		return Volume{}, wrong
	}
	p := &parser{certificate: certificate, asked: asked, defaults: defaults}
	p.ID, p.Target, p.Spec = asked.ID, asked.Target, certificate.Spec
	p.Values = table().Read(p.Dialect, asked.Attributes, p.Profile)
	problems := append(p.checkUnknown(), wrong...)
	problems = append(problems, p.Set(p.set)...)
	problems = append(problems, p.setMountGroup(asked.Group)...)
	problems = append(problems, p.setMountFlags(asked.MountFlags)...)
	problems = append(problems, p.checkCombinations()...)
	if len(problems) > 0 {
		return Volume{}, problems
	}
	return p.Volume, nil
}

// set sets one attribute. key is how the pod's author writes it.
func (p *parser) set(a spec.Attribute, key, value string) error {
	return problem.In(key, setters()[a.Name](p, value))
}

// wrong reports whether an attribute is wrong by itself.
func (p *parser) wrong(name string) bool { return p.Wrong(name) || p.certificate.Wrong(name) }
