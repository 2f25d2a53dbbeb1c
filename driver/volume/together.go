package volume

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// together checks what no attribute shows alone.
func (p *parser) together() (problems Problems) {
	for _, err := range []error{p.identity(), p.names(), p.key(), p.owner(), cmp.Or(p.arrange(), p.stores())} {
		if err != nil {
			problems = append(problems, err)
		}
	}
	return problems
}

// identity adds the pod's SPIFFE ID.
func (p *parser) identity() error {
	if !p.spiffe {
		return nil
	}
	if p.defaults.TrustDomain == "" {
		return problem(Prefix+"spiffe", "is true, and this driver has no trust domain: its operator sets --trust-domain")
	}
	id, err := p.spiffeID()
	if err != nil {
		return problem(Prefix+"spiffe", "is true, and makes no SPIFFE ID: %w", err)
	}
	for _, uri := range p.URIs {
		if uri.Scheme == "spiffe" { // An X.509 SVID has one URI (SPIFFE's X509-SVID, section 2).
			return problem(Prefix+"uri-sans", "has a SPIFFE ID, and spiffe makes %s: give one of them", id)
		}
	}
	p.URIs = append(p.URIs, id.URL())
	return nil
}

// spiffeID is the pod's, of the driver's trust domain and path.
func (p *parser) spiffeID() (spiffeid.ID, error) {
	domain, err := spiffeid.TrustDomainFromString(p.defaults.TrustDomain)
	if err != nil {
		return spiffeid.ID{}, err
	}
	path, err := p.expand("the path", cmp.Or(p.defaults.SPIFFEPath, StandardSPIFFEPath))
	if err != nil {
		return spiffeid.ID{}, err
	}
	return spiffeid.FromPath(domain, path)
}

// names demands an identity. The old driver did not.
func (p *parser) names() error {
	if p.old || p.Subject.CommonName != "" || p.RawSubject != nil || len(p.DNSNames)+len(p.IPs)+len(p.URIs) > 0 {
		return nil
	}
	return problem(Prefix+"dns-names", "is missing: ask for at least one of dns-names, uri-sans, spiffe, ip-sans, common-name and literal-subject")
}

// key completes the key by its algorithm.
func (p *parser) key() error {
	k := &p.Key
	if k.Encoding == "" {
		k.Encoding = PKCS8
		if p.old && k.Algorithm == RSA {
			k.Encoding = PKCS1
		}
	}
	if k.Size == 0 {
		k.Size = p.standardSize()
	}
	switch {
	case k.Algorithm == RSA && (k.Size < 2048 || k.Size > 8192):
		return problem(p.prefix()+"key-size", "is %d: RSA keys have 2048 to 8192 bits", k.Size)
	case k.Algorithm == ECDSA && !slices.Contains([]int{256, 384, 521}, k.Size):
		return problem(p.prefix()+"key-size", "is %d: ECDSA keys have 256, 384 or 521 bits", k.Size)
	case k.Algorithm == Ed25519 && k.Size != 0:
		return problem(p.prefix()+"key-size", "is %d: Ed25519 keys have no size", k.Size)
	case k.Algorithm != RSA && k.Encoding == PKCS1:
		return problem(p.prefix()+"key-encoding", "is PKCS1: only RSA keys have that encoding, this one is %s", k.Algorithm)
	}
	return nil
}

func (p *parser) standardSize() int {
	switch {
	case p.Key.Algorithm == ECDSA:
		return 256
	case p.Key.Algorithm == RSA && p.old:
		return 2048
	case p.Key.Algorithm == RSA:
		return 3072
	}
	return 0
}

// stores completes what keystores need.
func (p *parser) stores() error {
	if p.pkcs12 {
		if err := p.oldStore(); err != nil {
			return err
		}
	}
	if !p.hasStores() {
		return nil
	}
	if p.Keystore.Password == "" && p.secrets && p.secretPassword == "" {
		return problem("nodePublishSecretRef", "names a Secret without %s, the password of the keystores", PasswordKey)
	}
	p.Keystore.Password = cmp.Or(p.Keystore.Password, p.secretPassword)
	return p.password()
}

// oldStore adds the keystore that the old driver knows.
func (p *parser) oldStore() error {
	if p.pkcs12Password == "" {
		return problem(OldPrefix+"pkcs12-password", "is required with pkcs12-enable")
	}
	if p.Keystore.Password != "" {
		return problem(Prefix+"keystore-password", "is given, and %s, too: give one of them", OldPrefix+"pkcs12-password")
	}
	if other, taken := p.Files[p.pkcs12File]; taken && other != PKCS12Part {
		return problem(OldPrefix+"pkcs12-filename", "is %s, the name of another file: %s", quote(p.pkcs12File), other)
	}
	p.Files[p.pkcs12File], p.Keystore.Password = PKCS12Part, p.pkcs12Password
	return nil
}

func (p *parser) hasStores() bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(p.Files)), func(part Part) bool {
		return slices.Contains([]Part{PKCS12Part, PKCS12TrustPart, JKSPart, JKSTrustPart}, part)
	})
}

// password checks what the formats can't hold.
func (p *parser) password() error {
	const shortest, longest = 6, 1024 // What keytool takes for a JKS (sun.security.tools.keytool.Main); more is no password.
	word := p.Keystore.Password
	jks := slices.Contains(p.layouts, layoutJKS)
	switch {
	case word == "":
		return nil
	case len(word) > longest:
		return problem("the keystores' password", "has %d bytes: at most %d", len(word), longest)
	case strings.ContainsFunc(word, func(r rune) bool { return r == utf8.RuneError || r > 0xffff }):
		return problem("the keystores' password", "has a character that a keystore can't hold: those of the Basic Multilingual Plane alone (RFC 7292, appendix B.1)")
	case jks && !ascii(word):
		return problem("the keystores' password", "has a character that a JKS can't hold: ASCII alone")
	case jks && len(word) < shortest:
		return problem("the keystores' password", "has %d characters: a JKS needs at least %d", len(word), shortest)
	}
	return nil
}

// owner settles on one group.
func (p *parser) owner() error {
	if p.gidGiven == nil {
		return nil
	}
	if p.fsGroupGiven {
		return problem(Prefix+"gid", "is given, and fs-group, too: give one of them")
	}
	p.Owner.Group = p.gidGiven
	return nil
}

// mountGroup is the pod's fsGroup, which an fs-group attribute overrules.
func (p *parser) mountGroup(group string) Problems {
	p.fsGroupGiven = p.Owner.Group != nil
	if group == "" || p.fsGroupGiven {
		return nil
	}
	gid, err := strconv.ParseUint(group, 10, 32)
	if err != nil {
		return Problems{problem("volume_mount_group", "is %s, which is not a group id", quote(group))}
	}
	id := int(gid)
	p.Owner.Group = &id
	return nil
}

// mountFlags takes an SELinux context, the one flag that means something for a certificate.
func (p *parser) mountFlags(flags []string) (problems Problems) {
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

func (p *parser) prefix() string {
	if p.old {
		return OldPrefix
	}
	return Prefix
}
