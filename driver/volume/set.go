package volume

import (
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// setters returns what sets each attribute.
var setters = sync.OnceValue(func() map[string]func(p *parser, value string) error {
	return map[string]func(p *parser, value string) error{
		"renew-before": (*parser).setRenewBefore, "renew": (*parser).setRenew, "renew-window": (*parser).setRenewWindow,
		"continue-on-not-ready": (*parser).setContinueOnNotReady, "pod-readiness-gate": (*parser).setGates,
		"reuse-private-key": (*parser).setReuseKey,

		"ca-file": (*parser).setCAFile, "certificate-file": (*parser).setCertificateFile,
		"privatekey-file": (*parser).setKeyFile, "layout": (*parser).setLayout, "trust": (*parser).setTrust,
		"fs-group": (*parser).setFSGroup, "gid": (*parser).setGID, "uid": (*parser).setUID, "mode": (*parser).setMode,

		"pkcs12-filename": (*parser).setPKCS12File, "pkcs12-enable": (*parser).setPKCS12Enable,
		"pkcs12-password": (*parser).setPKCS12Password, "keystore-password": (*parser).setKeystorePassword,
		"keystore-alias": (*parser).setKeystoreAlias, "keystore-algorithms": (*parser).setKeystoreAlgorithms,
	}
})

// Each function here sets one attribute from its value: the value that was given, or the default, or "".

func (p *parser) setReuseKey(value string) error     { return spec.Boolean(&p.ReuseKey, value, false) }
func (p *parser) setPKCS12Enable(value string) error { return spec.Boolean(&p.pkcs12, value, false) }

func (p *parser) setContinueOnNotReady(value string) error {
	return spec.Boolean(&p.StartsWithout, value, p.defaults.StartsWithout)
}

func (p *parser) setRenew(value string) error {
	var renewed bool
	err := spec.Boolean(&renewed, value, true)
	p.Once = !renewed
	return err
}

// setRenewBefore accepts what csi-driver accepts, where a time before the certificate's begin or after its end
// means a third of the lifetime, and percentages.
func (p *parser) setRenewBefore(value string) error {
	if value == "" {
		return nil
	}
	digits, part := strings.CutSuffix(value, "%")
	if !part {
		return p.Dialect.SetDuration(&p.RenewBefore, value, p.Dialect.Lenient())
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > 99 || strconv.Itoa(n) != digits {
		return fmt.Errorf("is %s: a part of the lifetime is 1%% to 99%%", message.Quote(value))
	}
	p.RenewPart = n
	return nil
}

func (p *parser) setCAFile(value string) error          { return p.fileName(&p.caFile, value) }
func (p *parser) setCertificateFile(value string) error { return p.fileName(&p.certificateFile, value) }
func (p *parser) setKeyFile(value string) error         { return p.fileName(&p.keyFile, value) }
func (p *parser) setPKCS12File(value string) error      { return p.fileName(&p.pkcs12File, value) }

func (p *parser) setPKCS12Password(value string) error { p.pkcs12Password = value; return nil }

func (p *parser) setKeystorePassword(value string) error { p.Keystore.Password = value; return nil }

func (p *parser) setKeystoreAlias(value string) error {
	const longest = 64
	if len(value) > longest || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
		return fmt.Errorf("is %s: an alias has up to %d printable ASCII characters", message.Quote(value), longest)
	}
	p.Keystore.Alias = value
	return nil
}

func (p *parser) setKeystoreAlgorithms(value string) error {
	p.Keystore.Algorithms = Algorithms(value)
	if !slices.Contains([]Algorithms{Modern2023, LegacyDES, LegacyRC2}, p.Keystore.Algorithms) {
		return fmt.Errorf("is %s: known are Modern2023, LegacyDES and LegacyRC2", message.Quote(value))
	}
	return nil
}

func (p *parser) fileName(name *string, value string) error {
	if !p.Dialect.Lenient() && strings.ContainsFunc(value, unicode.IsControl) {
		return fmt.Errorf("is %s: a file name has no control characters", message.Quote(value))
	}
	return fileName(name, value, p.Dialect.Lenient())
}

// fileName checks the name of a file, which may be hidden: two dots at the begin are for the driver's own.
func fileName(name *string, value string, hidden bool) error {
	switch dots := len(value) - len(strings.TrimLeft(value, ".")); {
	case strings.ContainsAny(value, "/\x00"):
		return fmt.Errorf("is %s: a file name, not a path", message.Quote(value))
	case dots > 1 || dots == len(value) && value != "" || dots == 1 && !hidden:
		return fmt.Errorf("is %s: a file name must not begin with a dot", message.Quote(value))
	case len(value) > 255: // NAME_MAX, linux/limits.h.
		return fmt.Errorf("is %d bytes long: a file name has at most 255", len(value))
	}
	*name = value
	return nil
}

func (p *parser) setFSGroup(value string) error { return p.setID(&p.Owner.Group, value, 1) }
func (p *parser) setGID(value string) error     { return p.setID(&p.gidGiven, value, 0) }
func (p *parser) setUID(value string) error     { return p.setID(&p.Owner.User, value, 0) }

// setID reads the id of a user or group, if there is one.
func (p *parser) setID(to **int, value string, first int64) error {
	if value == "" {
		return nil
	}
	const nobody = 1<<32 - 1 // What chown(2) takes for "as it is".
	n, err := strconv.ParseInt(value, 10, 64)
	switch {
	case err != nil || n < first || n >= nobody:
		return fmt.Errorf("is %s: an id is %d to 4294967294", message.Quote(value), first)
	case !p.Dialect.IsCanonical(value):
		return fmt.Errorf("is %s: write %d, without a sign or zeros in front", message.Quote(value), n)
	}
	*to = new(int(n))
	return nil
}

func (p *parser) setMode(value string) error {
	if value == "" {
		return nil
	}
	n, err := strconv.ParseUint(value, 8, 32)
	switch {
	case err != nil || n > 0o777 || len(value) > 4:
		return fmt.Errorf("is %s: a file's mode is three octal digits, such as 0440", message.Quote(value))
	case n&0o444 == 0:
		return fmt.Errorf("is %s: nobody could read the files", message.Quote(value))
	}
	p.Owner.Mode = new(fs.FileMode(n))
	return nil
}
