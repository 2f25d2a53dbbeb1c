package spec

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/problem"
)

// setters returns what sets each attribute.
var setters = sync.OnceValue(func() map[string]func(p *parser, value string) error {
	return map[string]func(p *parser, value string) error{
		"profile": (*parser).setProfile, "issuer-name": (*parser).setIssuerName,
		"issuer-kind": (*parser).setIssuerKind, "issuer-group": (*parser).setIssuerGroup,

		"common-name": (*parser).setCommonName, "organizations": (*parser).setOrganizations,
		"organizationalunits": (*parser).setOrganizationalUnits, "countries": (*parser).setCountries,
		"provinces": (*parser).setProvinces, "localities": (*parser).setLocalities,
		"streetaddresses": (*parser).setStreetAddresses, "postalcodes": (*parser).setPostalCodes,
		"serialnumber": (*parser).setSerialNumber, "literal-subject": (*parser).setLiteralSubject,

		"dns-names": (*parser).setDNSNames, "ip-sans": (*parser).setIPSANs,
		"uri-sans": (*parser).setURISANs, "spiffe": (*parser).setSPIFFE,

		"duration": (*parser).setLifetime, "key-usages": (*parser).setKeyUsages,
		"usages-in-request": (*parser).setUsagesInRequest, "is-ca": (*parser).setIsCA,
		"key-algorithm": (*parser).setKeyAlgorithm, "key-size": (*parser).setKeySize,
		"key-encoding": (*parser).setKeyEncoding, "use-token-request": (*parser).setUseTokenRequest,
	}
})

// Each function here sets one attribute from its value: the value that was given, or the default, or "".

func (p *parser) setIssuerName(value string) error {
	p.Issuer.Name = value
	if value == "" && !p.dialect.ownIssuer {
		p.Issuer = signer.Issuer{Name: p.defaults.IssuerName, Kind: p.defaults.IssuerKind, Group: p.defaults.IssuerGroup}
	}
	if p.Wrong("profile") {
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

func (p *parser) setSPIFFE(value string) error { return Boolean(&p.spiffe, value, false) }
func (p *parser) setIsCA(value string) error   { return Boolean(&p.IsCA, value, false) }

func (p *parser) setUsagesInRequest(value string) error {
	return Boolean(&p.SignsUsages, value, false)
}

func (p *parser) setUseTokenRequest(value string) error {
	return Boolean(&p.AsPod, value, p.defaults.AsPod)
}

func (p *parser) setLifetime(value string) error {
	return p.Dialect.SetDuration(&p.Duration, value, false)
}

func (p *parser) setKeyUsages(value string) error {
	p.NamesUsages = p.IsSet("key-usages")
	known, names := signer.Usages(), List(value)
	if len(names) == 0 {
		return EmptyList(value)
	}
	return p.Dialect.Each(value, names, func(name string) error {
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
	if err != nil || p.Key.Size <= 0 || !p.Dialect.IsCanonical(value) {
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
