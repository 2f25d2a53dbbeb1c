package volume

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/problem"
)

// Each function here sets one attribute from its value: the value that was given, or the default, or "".

func (p *parser) setIssuerName(value string) error {
	p.Issuer.Name = value
	if value == "" && !p.dialect.ownIssuer {
		p.Issuer = signer.Issuer{Name: p.defaults.IssuerName, Kind: p.defaults.IssuerKind, Group: p.defaults.IssuerGroup}
	}
	if p.inputs["profile"].wrong {
		return nil
	}
	if p.Issuer.Name == "" && !p.canGive("issuer-name") {
		return errors.New("is not an attribute here, and this driver has no issuer: its operator sets --issuer-name")
	}
	if p.Issuer.Name == "" {
		return errors.New("is required: the name of the issuer that signs")
	}
	return nil
}

func (p *parser) setIssuerKind(value string) error {
	p.Issuer.Kind = cmp.Or(value, p.Issuer.Kind, p.dialect.issuerKind)
	return nil
}

func (p *parser) setIssuerGroup(value string) error {
	p.Issuer.Group = cmp.Or(value, p.Issuer.Group, "cert-manager.io")
	return nil
}

// boolean reads true or false and nothing else, as csi-driver does; any other value leaves the standard one.
func boolean(to *bool, value string, standard bool) error {
	*to = standard
	switch value {
	case "true":
		*to = true
	case "false":
		*to = false
	case "":
	default:
		return fmt.Errorf("is %s: true or false", message.Quote(value))
	}
	return nil
}

func (p *parser) setSPIFFE(value string) error       { return boolean(&p.spiffe, value, false) }
func (p *parser) setIsCA(value string) error         { return boolean(&p.IsCA, value, false) }
func (p *parser) setReuseKey(value string) error     { return boolean(&p.ReuseKey, value, false) }
func (p *parser) setPKCS12Enable(value string) error { return boolean(&p.pkcs12, value, false) }

func (p *parser) setUsagesInRequest(value string) error {
	return boolean(&p.SignsUsages, value, false)
}

func (p *parser) setContinueOnNotReady(value string) error {
	return boolean(&p.StartsWithout, value, p.defaults.StartsWithout)
}

func (p *parser) setUseTokenRequest(value string) error {
	return boolean(&p.AsPod, value, p.defaults.AsPod)
}

func (p *parser) setRenew(value string) error {
	var renewed bool
	err := boolean(&renewed, value, true)
	p.Once = !renewed
	return err
}

func (p *parser) setLifetime(value string) error { return p.setDuration(&p.Duration, value, false) }

// setRenewBefore accepts what csi-driver accepts, where a time before the certificate's begin or after its end
// means a third of the lifetime, and percentages.
func (p *parser) setRenewBefore(value string) error {
	if value == "" {
		return nil
	}
	digits, part := strings.CutSuffix(value, "%")
	if !part {
		return p.setDuration(&p.RenewBefore, value, p.dialect.lenient)
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > 99 || strconv.Itoa(n) != digits {
		return fmt.Errorf("is %s: a part of the lifetime is 1%% to 99%%", message.Quote(value))
	}
	p.RenewPart = n
	return nil
}

// setDuration parses a duration. With orNone, one that is too short counts as absent.
func (p *parser) setDuration(to *time.Duration, value string, orNone bool) error {
	const longest = 10 * 365 * 24 * time.Hour
	d, err := time.ParseDuration(value)
	switch {
	case err != nil:
		return fmt.Errorf("is %s, which is not a duration such as 30m or 24h", message.Quote(value))
	case d < time.Second && orNone:
		return nil
	case d < time.Second:
		return fmt.Errorf("is %s: the shortest is 1s", message.Quote(value))
	case d > longest && !p.dialect.lenient:
		return fmt.Errorf("is %s: the longest is 87600h, ten years", message.Quote(value))
	}
	*to = d
	return nil
}

func (p *parser) setKeyUsages(value string) error {
	p.NamesUsages = p.isSet("key-usages")
	known, names := signer.Usages(), list(value)
	if len(names) == 0 {
		return emptyList(value)
	}
	return p.each(value, names, func(name string) error {
		if !slices.Contains(known, name) {
			return fmt.Errorf("has %s, which is not a key usage%s",
				message.Quote(name), cmp.Or(problem.Suggestion(name, "%q", known), " such as server auth"))
		}
		p.Usages = append(p.Usages, signer.Usage(name))
		return nil
	})
}

func (p *parser) setKeyAlgorithm(value string) error {
	for _, a := range []Algorithm{RSA, ECDSA, Ed25519} {
		if strings.EqualFold(value, string(a)) {
			p.Key.Algorithm = a
			return nil
		}
	}
	return fmt.Errorf("is %s: known are RSA, ECDSA and Ed25519", message.Quote(value))
}

func (p *parser) setKeySize(value string) (err error) {
	if value == "" {
		return nil
	}
	p.Key.Size, err = strconv.Atoi(value)
	if err != nil || p.Key.Size <= 0 || !p.isCanonical(value) {
		return fmt.Errorf("is %s, which is not a number of bits", message.Quote(value))
	}
	return nil
}

func (p *parser) setKeyEncoding(value string) error {
	for _, e := range []Encoding{"", PKCS1, PKCS8} {
		if strings.EqualFold(value, string(e)) {
			p.Key.Encoding = e
			return nil
		}
	}
	return fmt.Errorf("is %s: known are PKCS1 and PKCS8", message.Quote(value))
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
	if !p.dialect.lenient && strings.ContainsFunc(value, unicode.IsControl) {
		return fmt.Errorf("is %s: a file name has no control characters", message.Quote(value))
	}
	return fileName(name, value, p.dialect.lenient)
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
	case !p.isCanonical(value):
		return fmt.Errorf("is %s: write %d, without a sign or zeros in front", message.Quote(value), n)
	}
	*to = new(int(n))
	return nil
}

// isCanonical reports whether a number has neither sign nor leading zeros, which might mean octal. csi-driver
// takes them.
func (p *parser) isCanonical(number string) bool {
	return p.dialect.lenient || number == "0" || number[0] >= '1' && number[0] <= '9'
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

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > 127 }) < 0
}
