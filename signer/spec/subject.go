package spec

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/csv"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"

	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/problem"
)

// Each function here sets an attribute of the certificate's subject.

func (p *parser) setCommonName(value string) error {
	p.Subject.CommonName = value
	return p.checkField("CN", value)
}

func (p *parser) setSerialNumber(value string) error {
	p.Subject.SerialNumber = value
	return p.checkField("SERIALNUMBER", value)
}

func (p *parser) setOrganizations(value string) error {
	return p.setFields(&p.Subject.Organization, "O", value)
}
func (p *parser) setOrganizationalUnits(value string) error {
	return p.setFields(&p.Subject.OrganizationalUnit, "OU", value)
}
func (p *parser) setCountries(value string) error { return p.setFields(&p.Subject.Country, "C", value) }
func (p *parser) setProvinces(value string) error {
	return p.setFields(&p.Subject.Province, "ST", value)
}
func (p *parser) setLocalities(value string) error {
	return p.setFields(&p.Subject.Locality, "L", value)
}
func (p *parser) setStreetAddresses(value string) error {
	return p.setFields(&p.Subject.StreetAddress, "STREET", value)
}
func (p *parser) setPostalCodes(value string) error {
	return p.setFields(&p.Subject.PostalCode, "POSTALCODE", value)
}

// setFields sets all values of one kind.
func (p *parser) setFields(to *[]string, kind, value string) error {
	values, err := csvList(value)
	if err != nil {
		return err
	}
	*to = values
	return p.Dialect.Each(value, values, func(v string) error { return p.checkField(kind, v) })
}

// maxLengths returns how many characters a value has at most, by its kind (RFC 5280, appendix A.1; street and
// postal code: X.520, annex C).
func maxLengths() map[string]int {
	return map[string]int{
		"CN": 64, "SERIALNUMBER": 64, "C": 2, "L": 128, "ST": 128, "STREET": 128, "O": 64, "OU": 64, "POSTALCODE": 40,
	}
}

var (
	country   = regexp.MustCompile(`^[A-Za-z]{2}$`)              // ISO 3166-1, as RFC 5280 has it.
	printable = regexp.MustCompile(`^[A-Za-z0-9 '()+,./:=?-]*$`) // ASN.1's PrintableString.
)

// checkField checks a value of the subject. csi-driver does not.
func (p *parser) checkField(kind, value string) error {
	if p.dialect.lenient || value == "" {
		return nil
	}
	longest, bounded := maxLengths()[kind]
	switch n := utf8.RuneCountInString(value); {
	case strings.ContainsFunc(value, unicode.IsControl):
		return fmt.Errorf("has %s, with a control character", message.Quote(value))
	case kind == "C" && !country.MatchString(value):
		return fmt.Errorf("has %s, which is not the code of a country, such as DE", message.Quote(value))
	case kind == "SERIALNUMBER" && !printable.MatchString(value):
		return fmt.Errorf("has %s, which has more than letters, digits, spaces and '()+,-./:=?", message.Quote(value))
	case bounded && n > longest:
		return fmt.Errorf("has %s, of %d characters: at most %d", message.Quote(value), n, longest)
	}
	return nil
}

// setLiteralSubject parses a distinguished name (RFC 4514). Its text begins with the last element of the subject
// (section 2.1).
func (p *parser) setLiteralSubject(value string) error {
	if value == "" {
		return nil
	}
	name, err := ldap.ParseDN(value)
	if err != nil {
		return fmt.Errorf("is %s, which is not a distinguished name (RFC 4514) such as CN=web,O=Shop: %s",
			message.Quote(value), strings.Trim(message.Quote(err.Error()), `"`))
	}
	sequence, err := p.sequence(name)
	if err != nil {
		return err
	}
	if p.RawSubject, err = asn1.Marshal(sequence); err != nil {
		return fmt.Errorf("is %s, which can't be encoded: %w", message.Quote(value), err)
	}
	return nil
}

// sequence returns the elements of a distinguished name in the order of a subject.
func (p *parser) sequence(name *ldap.DN) (sequence pkix.RDNSequence, err error) {
	n := 0
	for _, rdn := range name.RDNs {
		n += len(rdn.Attributes)
	}
	if err := problem.CheckCount(n, maxElements, "attributes"); err != nil {
		return nil, err
	}
	var problems problem.List
	for _, rdn := range slices.Backward(name.RDNs) {
		var set pkix.RelativeDistinguishedNameSET
		for _, a := range rdn.Attributes {
			oid, err := p.attributeTypeOf(a)
			if err != nil && len(problems) < problem.Max {
				problems = append(problems, err)
			}
			set = append(set, pkix.AttributeTypeAndValue{Type: oid, Value: a.Value})
		}
		sequence = append(sequence, set)
	}
	return sequence, problems.Err()
}

// attributeTypeOf checks one attribute of a distinguished name, and returns its type.
func (p *parser) attributeTypeOf(a *ldap.AttributeTypeAndValue) (asn1.ObjectIdentifier, error) {
	oid, err := attributeType(a.Type)
	switch {
	case err != nil:
		return nil, err
	case a.Value == "" && !p.dialect.lenient:
		return nil, fmt.Errorf("has an empty %s", strings.ToUpper(a.Type))
	}
	return oid, p.checkField(strings.ToUpper(a.Type), a.Value)
}

// attributeTypes returns the short names of RFC 4514, section 3, and others that certificates have.
func attributeTypes() map[string]asn1.ObjectIdentifier {
	return map[string]asn1.ObjectIdentifier{
		"CN": {2, 5, 4, 3}, "SERIALNUMBER": {2, 5, 4, 5}, "C": {2, 5, 4, 6}, "L": {2, 5, 4, 7}, "ST": {2, 5, 4, 8},
		"STREET": {2, 5, 4, 9}, "O": {2, 5, 4, 10}, "OU": {2, 5, 4, 11}, "POSTALCODE": {2, 5, 4, 17},
		"DC": {0, 9, 2342, 19200300, 100, 1, 25}, "UID": {0, 9, 2342, 19200300, 100, 1, 1},
	}
}

func attributeType(name string) (asn1.ObjectIdentifier, error) {
	if oid, ok := attributeTypes()[strings.ToUpper(name)]; ok {
		return oid, nil
	}
	oid, err := x509.ParseOID(name)
	if err != nil {
		return nil, fmt.Errorf("has the attribute type %s: known are %s, and object identifiers",
			message.Quote(name), strings.Join(slices.Sorted(maps.Keys(attributeTypes())), ", "))
	}
	var parsed asn1.ObjectIdentifier
	for _, arc := range strings.Split(oid.String(), ".") {
		n, err := strconv.Atoi(arc)
		if err != nil {
			return nil, fmt.Errorf("has the attribute type %s, whose numbers are too big", message.Quote(name))
		}
		parsed = append(parsed, n)
	}
	return parsed, nil
}

// csvList splits a line of comma-separated values, which may be quoted (RFC 4180). Empty values are dropped.
func csvList(value string) (values []string, err error) {
	if value == "" {
		return nil, nil
	}
	reader := csv.NewReader(strings.NewReader(value))
	reader.TrimLeadingSpace = true
	records, err := reader.ReadAll()
	if err != nil || len(records) > 1 {
		return nil, errors.New(`is ` + message.Quote(value) + `, which is not a list such as a,"b, c"`)
	}
	for _, record := range records {
		for _, v := range record {
			if v = strings.TrimSpace(v); v != "" {
				values = append(values, v)
			}
		}
	}
	return values, nil
}
