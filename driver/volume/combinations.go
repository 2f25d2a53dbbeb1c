package volume

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/util/validation"
)

// checkCombinations checks what no attribute shows alone. An attribute that is wrong by itself is not looked at again.
func (p *parser) checkCombinations() (problems Problems) {
	for _, c := range []struct {
		attributes string
		check      func() error
	}{
		{"spiffe uri-sans", p.addSPIFFEID},
		{"profile common-name literal-subject dns-names ip-sans uri-sans spiffe", p.requireName},
		{"renew renew-before renew-window", p.checkRenewal},
		{"key-algorithm key-size key-encoding", p.completeKey},
		{"duration", p.checkRequestableDuration},
		{"use-token-request", p.checkAsPod},
		{"fs-group gid", p.resolveGroup},
		{"layout uri-sans spiffe ca-file certificate-file privatekey-file pkcs12-filename pkcs12-enable", p.setFiles},
		{"layout pkcs12-filename pkcs12-enable pkcs12-password keystore-password keystore-alias keystore-algorithms",
			p.completeKeystore},
	} {
		if !slices.ContainsFunc(strings.Fields(c.attributes), func(name string) bool { return p.inputs[name].wrong }) {
			problems = append(problems, problemsOf(c.check())...)
		}
	}
	return problems
}

// checkIssuer checks the issuer that the pod names: an object of the API server. In csi-driver's dialect an issuer
// of another group than cert-manager's may be anything.
func (p *parser) checkIssuer() error {
	const builtIn = "cert-manager.io"
	i, foreign := p.Issuer, p.Issuer.Group != builtIn
	var problems Problems
	if foreign && p.dialect.lenient {
		return nil
	}
	given := func(name string) bool { return p.isSet(name) && !p.inputs[name].wrong }
	if given("issuer-name") && len(validation.IsDNS1123Subdomain(i.Name)) > 0 {
		problems = append(problems, problem(p.keyOf("issuer-name"),
			"is %s: an issuer's name has up to 253 lower-case letters, digits, dashes and dots", quote(i.Name)))
	}
	switch {
	case !given("issuer-kind"):
	case !foreign && i.Kind != "Issuer" && i.Kind != "ClusterIssuer":
		problems = append(problems, problem(p.keyOf("issuer-kind"),
			"is %s: known are Issuer and ClusterIssuer, and one of another API needs its issuer-group", quote(i.Kind)))
	case len(validation.IsDNS1035Label(strings.ToLower(i.Kind))) > 0:
		problems = append(problems, problem(p.keyOf("issuer-kind"),
			"is %s, which is not a kind such as ClusterIssuer", quote(i.Kind)))
	}
	if given("issuer-group") && len(validation.IsDNS1123Subdomain(i.Group)) > 0 {
		problems = append(problems, problem(p.keyOf("issuer-group"),
			"is %s, which is not an API group such as cert-manager.io", quote(i.Group)))
	}
	return problems.err()
}

// addSPIFFEID adds the pod's SPIFFE ID.
func (p *parser) addSPIFFEID() error {
	if !p.spiffe || p.Pod.Namespace == "" || p.Pod.ServiceAccount == "" {
		return nil
	}
	key := p.keyOf("spiffe") + " is true"
	if p.defaults.TrustDomain == "" {
		return problem(key+",", "and this driver has no trust domain: its operator sets --trust-domain")
	}
	id, err := p.spiffeID()
	if err != nil {
		return problem(key+",", "and none can be made: %w", err)
	}
	for _, uri := range p.URIs {
		if uri.Scheme == "spiffe" { // An X.509 SVID has one URI (SPIFFE's X509-SVID, section 2).
			return problem(p.keyOf("uri-sans"), "has a SPIFFE ID, and spiffe makes %s: give one of them", id)
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
		err = fmt.Errorf("a certificate can't hold %s", quote(id.String()))
	}
	return id, err
}

// requireName requires an identity. csi-driver does not.
func (p *parser) requireName() error {
	if p.dialect.lenient || p.spiffe || p.Subject.CommonName != "" || p.RawSubject != nil ||
		len(p.DNSNames)+len(p.IPs)+len(p.URIs) > 0 {
		return nil
	}
	return problem(p.keyOf("dns-names"), "is missing: ask for at least one of dns-names, uri-sans, spiffe, "+
		"ip-sans, common-name and literal-subject")
}

// checkRenewal checks that there is one, where the pod says when.
func (p *parser) checkRenewal() error {
	var problems Problems
	for _, name := range []string{"renew-before", "renew-window"} {
		if p.Once && p.isSet(name) {
			problems = append(problems, problem(p.keyOf(name), "is given, and renew is false: give one of them"))
		}
	}
	return problems.err()
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
		return problem(p.keyOf("key-size"), "is %d: RSA keys have 2048 to 8192 bits", k.Size)
	case k.Algorithm == ECDSA && !slices.Contains([]int{256, 384, 521}, k.Size):
		return problem(p.keyOf("key-size"), "is %d: ECDSA keys have 256, 384 or 521 bits", k.Size)
	case k.Algorithm == Ed25519 && k.Size != 0:
		return problem(p.keyOf("key-size"), "is %d: Ed25519 keys have no size", k.Size)
	case k.Algorithm != RSA && k.Encoding == PKCS1:
		return problem(p.keyOf("key-encoding"), "is PKCS1: only RSA keys have that encoding, this one is %s", k.Algorithm)
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

// completeKeystore finds the password of the keystores, and checks what they need.
func (p *parser) completeKeystore() error {
	const inSecret = PasswordKey + " of nodePublishSecretRef"
	if err := checkSize(p.asked.Password, maxPassword); err != nil { // It is stored, whether there are keystores or not.
		return withKey(inSecret, err)
	}
	if p.pkcs12 && p.pkcs12Password == "" {
		return problem(p.keyOf("pkcs12-password"), "is required with pkcs12-enable")
	}
	if !p.pkcs12 && !p.isSet("pkcs12-enable") && p.isSet("pkcs12-password") {
		return problem(p.keyOf("pkcs12-password"), "is given, and pkcs12-enable is not")
	}
	if p.pkcs12 && p.isSet("keystore-password") {
		return problem(p.keyOf("keystore-password"), "is given, and %s, too: give one of them",
			p.keyOf("pkcs12-password"))
	}
	if !p.hasKeystores() {
		return p.unused("no keystore is among the files: add a layout such as pkcs12",
			"keystore-password", "keystore-alias", "keystore-algorithms")
	}
	if p.pkcs12 {
		p.Keystore.Password = p.pkcs12Password
		return p.checkPassword(p.keyOf("pkcs12-password"))
	}
	if p.isSet("keystore-password") {
		return p.checkPassword(p.keyOf("keystore-password"))
	}
	if p.asked.Secrets && p.asked.Password == "" {
		return problem("nodePublishSecretRef", "names a Secret without %s, the password of the keystores", PasswordKey)
	}
	p.Keystore.Password = p.asked.Password
	return p.checkPassword(inSecret)
}

// hasKeystores reports whether a keystore or truststore is among the files, which may not be named yet.
func (p *parser) hasKeystores() bool {
	return p.pkcs12 || slices.ContainsFunc(Layouts(), func(l Layout) bool {
		return slices.Contains(p.layouts, l.Name) && slices.ContainsFunc(l.Files, func(f File) bool {
			return slices.Contains([]Part{PKCS12Part, PKCS12TrustPart, JKSPart, JKSTrustPart}, f.Part)
		})
	})
}

// checkPassword checks what the formats can't hold.
func (p *parser) checkPassword(key string) error {
	const shortest = 6 // Of a JKS, for keytool (sun.security.tools.keytool.Main).
	password := p.Keystore.Password
	jks := slices.Contains(p.layouts, layoutJKS)
	switch {
	case password == "":
		return nil
	case len(password) > maxPassword:
		return withKey(key, checkSize(password, maxPassword))
	case strings.ContainsFunc(password, func(r rune) bool { return r == utf8.RuneError || r > 0xffff }):
		return problem(key, "has a character that a keystore can't hold: "+
			"those of the Basic Multilingual Plane alone (RFC 7292, appendix B.1)")
	case jks && !isASCII(password):
		return problem(key, "has a character that a JKS can't hold: ASCII alone")
	case jks && len(password) < shortest:
		return problem(key, "has %d characters: a JKS needs at least %d", len(password), shortest)
	}
	return nil
}

// resolveGroup chooses between gid and fs-group.
func (p *parser) resolveGroup() error {
	if p.gidGiven == nil {
		return nil
	}
	if p.fsGroupGiven {
		return problem(p.keyOf("gid"), "is given, and fs-group, too: give one of them")
	}
	p.Owner.Group = p.gidGiven
	return nil
}

// setMountGroup takes the pod's fsGroup, which an fs-group attribute overrides.
func (p *parser) setMountGroup(group string) Problems {
	p.fsGroupGiven = p.Owner.Group != nil
	if group == "" || p.fsGroupGiven {
		return nil
	}
	if err := p.setID(&p.Owner.Group, group, 0); err != nil {
		return Problems{problem("fsGroup", "%w", err)}
	}
	return nil
}

// setMountFlags takes an SELinux context, the only mount flag that is known.
func (p *parser) setMountFlags(flags []string) (problems Problems) {
	p.SELinuxContext = p.defaults.SELinuxContext
	for _, flag := range flags {
		context, ok := strings.CutPrefix(flag, "context=")
		context = strings.Trim(context, `"`)
		if !ok || strings.ContainsAny(context, "\"\x00") {
			problems = append(problems, problem("mount_flags", "have %s: only context= is known", quote(flag)))
			continue
		}
		p.SELinuxContext = context
	}
	return problems
}
