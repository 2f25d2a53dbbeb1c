package volume

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// checkCombinations checks what no attribute shows alone. An attribute that is wrong by itself is not looked at again.
func (p *parser) checkCombinations() problem.List {
	return spec.Check([]spec.Combination{
		{Attributes: "renew renew-before renew-window", Check: p.checkRenewal},
		{Attributes: "fs-group gid", Check: p.resolveGroup},
		{
			Attributes: "layout uri-sans spiffe ca-file certificate-file privatekey-file pkcs12-filename pkcs12-enable",
			Check:      p.setFiles,
		}, {
			Attributes: "layout pkcs12-filename pkcs12-enable pkcs12-password keystore-password keystore-alias " +
				"keystore-algorithms",
			Check: p.completeKeystore,
		},
	}, p.wrong)
}

// checkRenewal checks that there is one, where the pod says when.
func (p *parser) checkRenewal() error {
	var problems problem.List
	for _, name := range []string{"renew-before", "renew-window"} {
		if p.Once && p.IsSet(name) {
			problems = append(problems, problem.New(p.KeyOf(name), "is given, and renew is false: give one of them"))
		}
	}
	return problems.Err()
}

// completeKeystore finds the password of the keystores, and checks what they need.
func (p *parser) completeKeystore() error {
	const inSecret = PasswordKey + " of nodePublishSecretRef"
	// It is stored, whether there are keystores or not.
	if err := problem.CheckSize(p.asked.Password, maxPassword); err != nil {
		return problem.In(inSecret, err)
	}
	if p.pkcs12 && p.pkcs12Password == "" {
		return problem.New(p.KeyOf("pkcs12-password"), "is required with pkcs12-enable")
	}
	if !p.pkcs12 && !p.IsSet("pkcs12-enable") && p.IsSet("pkcs12-password") {
		return problem.New(p.KeyOf("pkcs12-password"), "is given, and pkcs12-enable is not")
	}
	if p.pkcs12 && p.IsSet("keystore-password") {
		return problem.New(p.KeyOf("keystore-password"), "is given, and %s, too: give one of them",
			p.KeyOf("pkcs12-password"))
	}
	if !p.hasKeystores() {
		return p.unused("no keystore is among the files: add a layout such as pkcs12",
			"keystore-password", "keystore-alias", "keystore-algorithms")
	}
	if p.pkcs12 {
		p.Keystore.Password = p.pkcs12Password
		return p.checkPassword(p.KeyOf("pkcs12-password"))
	}
	if p.IsSet("keystore-password") {
		return p.checkPassword(p.KeyOf("keystore-password"))
	}
	if p.asked.Secrets && p.asked.Password == "" {
		return problem.New("nodePublishSecretRef", "names a Secret without %s, the password of the keystores",
			PasswordKey)
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
		return problem.In(key, problem.CheckSize(password, maxPassword))
	case strings.ContainsFunc(password, func(r rune) bool { return r == utf8.RuneError || r > 0xffff }):
		return problem.New(key, "has a character that a keystore can't hold: "+
			"those of the Basic Multilingual Plane alone (RFC 7292, appendix B.1)")
	case jks && strings.ContainsFunc(password, func(r rune) bool { return r > unicode.MaxASCII }):
		return problem.New(key, "has a character that a JKS can't hold: ASCII alone")
	case jks && len(password) < shortest:
		return problem.New(key, "has %d characters: a JKS needs at least %d", len(password), shortest)
	}
	return nil
}

// resolveGroup chooses between gid and fs-group.
func (p *parser) resolveGroup() error {
	if p.gidGiven == nil {
		return nil
	}
	if p.fsGroupGiven {
		return problem.New(p.KeyOf("gid"), "is given, and fs-group, too: give one of them")
	}
	p.Owner.Group = p.gidGiven
	return nil
}

// setMountGroup takes the pod's fsGroup, which an fs-group attribute overrides.
func (p *parser) setMountGroup(group string) problem.List {
	p.fsGroupGiven = p.Owner.Group != nil
	if group == "" || p.fsGroupGiven {
		return nil
	}
	if err := p.setID(&p.Owner.Group, group, 0); err != nil {
		return problem.List{problem.New("fsGroup", "%w", err)}
	}
	return nil
}

// setMountFlags takes an SELinux context, the only mount flag that is known.
func (p *parser) setMountFlags(flags []string) (problems problem.List) {
	p.SELinuxContext = p.defaults.SELinuxContext
	for _, flag := range flags {
		context, ok := strings.CutPrefix(flag, "context=")
		context = strings.Trim(context, `"`)
		if !ok || strings.ContainsAny(context, "\"\x00") || !utf8.ValidString(context) { // The record is JSON.
			unknown := problem.New("mount_flags", "have %s: only context= is known", message.Quote(flag))
			problems = append(problems, unknown)
			continue
		}
		p.SELinuxContext = context
	}
	return problems
}
