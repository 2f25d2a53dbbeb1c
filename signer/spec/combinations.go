package spec

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/problem"
)

// checkCombinations checks what no attribute shows alone. An attribute that is wrong by itself is not looked at again.
func (p *parser) checkCombinations() problem.List {
	return Check([]Combination{
		{"spiffe uri-sans", p.addSPIFFEID},
		{"profile common-name literal-subject dns-names ip-sans uri-sans spiffe", p.requireName},
		{"key-algorithm key-size key-encoding", p.completeKey},
		{"duration", p.checkRequestableDuration},
		{"use-token-request", p.checkAsPod},
	}, p.Wrong)
}

// A Combination is of attributes that are checked together.
type Combination struct {
	Attributes string // Their names, with spaces between them.
	Check      func() error
}

// Check returns the problems of combinations of which no attribute is wrong by itself.
func Check(all []Combination, wrong func(name string) bool) (problems problem.List) {
	for _, c := range all {
		if !slices.ContainsFunc(strings.Fields(c.Attributes), wrong) {
			problems = append(problems, problem.Of(c.Check())...)
		}
	}
	return problems
}

// checkIssuer checks the issuer that the pod names: an object of the API server. In csi-driver's dialect an issuer
// of another group than cert-manager's may be anything.
func (p *parser) checkIssuer() error {
	const builtIn = "cert-manager.io"
	i, foreign := p.Issuer, p.Issuer.Group != builtIn
	var problems problem.List
	if foreign && p.dialect.lenient {
		return nil
	}
	given := func(name string) bool { return p.IsSet(name) && !p.Wrong(name) }
	if given("issuer-name") && len(validation.IsDNS1123Subdomain(i.Name)) > 0 {
		problems = append(problems, problem.New(p.KeyOf("issuer-name"),
			"is %s: an issuer's name has up to 253 lower-case letters, digits, dashes and dots", message.Quote(i.Name)))
	}
	switch {
	case !given("issuer-kind"):
	case !foreign && i.Kind != "Issuer" && i.Kind != "ClusterIssuer":
		problems = append(problems, problem.New(p.KeyOf("issuer-kind"),
			"is %s: known are Issuer and ClusterIssuer, and one of another API needs its issuer-group", message.Quote(i.Kind)))
	case len(validation.IsDNS1035Label(strings.ToLower(i.Kind))) > 0:
		problems = append(problems, problem.New(p.KeyOf("issuer-kind"),
			"is %s, which is not a kind such as ClusterIssuer", message.Quote(i.Kind)))
	}
	if given("issuer-group") && len(validation.IsDNS1123Subdomain(i.Group)) > 0 {
		problems = append(problems, problem.New(p.KeyOf("issuer-group"),
			"is %s, which is not an API group such as cert-manager.io", message.Quote(i.Group)))
	}
	return problems.Err()
}

// addSPIFFEID adds the pod's SPIFFE ID.
func (p *parser) addSPIFFEID() error {
	if !p.spiffe || p.Pod.Namespace == "" || p.Pod.ServiceAccount == "" {
		return nil
	}
	key := p.KeyOf("spiffe") + " is true"
	if p.defaults.TrustDomain == "" {
		return problem.New(key+",", "and this driver has no trust domain: its operator sets --trust-domain")
	}
	id, err := p.spiffeID()
	if err != nil {
		return problem.New(key+",", "and none can be made: %w", err)
	}
	for _, uri := range p.URIs {
		if uri.Scheme == "spiffe" { // An X.509 SVID has one URI (SPIFFE's X509-SVID, section 2).
			return problem.New(p.KeyOf("uri-sans"), "has a SPIFFE ID, and spiffe makes %s: give one of them", id)
		}
	}
	p.URIs = append(p.URIs, id.URL())
	if p.dialect.identity != "" {
		p.annotate(p.dialect.identity, id.String())
	}
	return nil
}

// spiffeID returns the pod's SPIFFE ID, of the driver's trust domain and path.
func (p *parser) spiffeID() (spiffeid.ID, error) {
	domain, err := spiffeid.TrustDomainFromString(p.defaults.TrustDomain)
	if err != nil {
		return spiffeid.ID{}, err
	}
	path, err := p.expand("the path", cmp.Or(p.defaults.SPIFFEPath, StandardSPIFFEPath))
	if err != nil {
		return spiffeid.ID{}, err
	}
	id, err := spiffeid.FromPath(domain, path)
	if err == nil && !survivesEncoding(id.URL()) { // SPIFFE allows a trust domain such as "a..b".
		err = fmt.Errorf("a certificate can't hold %s", message.Quote(id.String()))
	}
	return id, err
}

// requireName requires an identity. csi-driver does not.
func (p *parser) requireName() error {
	if p.dialect.lenient || p.spiffe || p.Subject.CommonName != "" || p.RawSubject != nil ||
		len(p.DNSNames)+len(p.IPs)+len(p.URIs) > 0 {
		return nil
	}
	return problem.New(p.KeyOf("dns-names"), "is missing: ask for at least one of dns-names, uri-sans, spiffe, "+
		"ip-sans, common-name and literal-subject")
}

// completeKey sets size and encoding, where the pod gives none, by the algorithm.
func (p *parser) completeKey() error {
	k := &p.Key
	if k.Encoding == "" {
		k.Encoding = PKCS8
		if k.Algorithm == RSA {
			k.Encoding = p.dialect.rsa.Encoding
		}
	}
	if k.Size == 0 {
		k.Size = p.defaultKeySize()
	}
	switch {
	case k.Algorithm == RSA && (k.Size < 2048 || k.Size > 8192):
		return problem.New(p.KeyOf("key-size"), "is %d: RSA keys have 2048 to 8192 bits", k.Size)
	case k.Algorithm == ECDSA && !slices.Contains([]int{256, 384, 521}, k.Size):
		return problem.New(p.KeyOf("key-size"), "is %d: ECDSA keys have 256, 384 or 521 bits", k.Size)
	case k.Algorithm == Ed25519 && k.Size != 0:
		return problem.New(p.KeyOf("key-size"), "is %d: Ed25519 keys have no size", k.Size)
	case k.Algorithm != RSA && k.Encoding == PKCS1:
		return problem.New(p.KeyOf("key-encoding"), "is PKCS1: only RSA keys have that encoding, this one is %s", k.Algorithm)
	}
	return p.checkRequestableKey()
}

func (p *parser) defaultKeySize() int {
	switch p.Key.Algorithm {
	case ECDSA:
		return 256
	case RSA:
		return p.dialect.rsa.Size
	}
	return 0
}
