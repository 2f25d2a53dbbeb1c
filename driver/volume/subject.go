package volume

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/csv"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// Each function here sets an attribute of the certificate's subject.

func (p *parser) commonName(value string) error {
	const longest = 64 // RFC 5280, appendix A.1, ub-common-name.
	if len(value) > longest && !p.old {
		return fmt.Errorf("is %d characters long: a common name has at most %d; use dns-names", len(value), longest)
	}
	p.Subject.CommonName = value
	return nil
}

func (p *parser) organizations(value string) error { return csvList(&p.Subject.Organization, value) }
func (p *parser) organizationalUnits(value string) error {
	return csvList(&p.Subject.OrganizationalUnit, value)
}
func (p *parser) countries(value string) error       { return csvList(&p.Subject.Country, value) }
func (p *parser) provinces(value string) error       { return csvList(&p.Subject.Province, value) }
func (p *parser) localities(value string) error      { return csvList(&p.Subject.Locality, value) }
func (p *parser) streetAddresses(value string) error { return csvList(&p.Subject.StreetAddress, value) }
func (p *parser) postalCodes(value string) error     { return csvList(&p.Subject.PostalCode, value) }

func (p *parser) serialNumber(value string) error { p.Subject.SerialNumber = value; return nil }

// literalSubject takes a distinguished name as RFC 4514 writes it: the last one first. The subject is in the other order (RFC 4514, section 2.1).
func (p *parser) literalSubject(value string) error {
	if value == "" {
		return nil
	}
	name, err := ldap.ParseDN(value)
	if err != nil {
		return fmt.Errorf("is %s, which is not a distinguished name (RFC 4514) such as CN=web,O=Shop: %w", quote(value), err)
	}
	var sequence pkix.RDNSequence
	for _, rdn := range slices.Backward(name.RDNs) {
		var set pkix.RelativeDistinguishedNameSET
		for _, a := range rdn.Attributes {
			oid, err := attributeType(a.Type)
			if err != nil {
				return err
			}
			set = append(set, pkix.AttributeTypeAndValue{Type: oid, Value: a.Value})
		}
		sequence = append(sequence, set)
	}
	if p.RawSubject, err = asn1.Marshal(sequence); err != nil {
		return fmt.Errorf("is %s, which can't be encoded: %w", quote(value), err)
	}
	return nil
}

// attributeTypes are the short names of RFC 4514, section 3, and what certificates have besides.
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
		return nil, fmt.Errorf("has the attribute type %s: known are %s, and object identifiers", quote(name), strings.Join(slices.Sorted(maps.Keys(attributeTypes())), ", "))
	}
	var parsed asn1.ObjectIdentifier
	for _, arc := range strings.Split(oid.String(), ".") {
		n, err := strconv.Atoi(arc)
		if err != nil {
			return nil, fmt.Errorf("has the attribute type %s, whose numbers are too big", quote(name))
		}
		parsed = append(parsed, n)
	}
	return parsed, nil
}

// csvList splits a line of comma-separated values, which may be quoted (RFC 4180).
func csvList(elements *[]string, value string) error {
	if value == "" {
		return nil
	}
	reader := csv.NewReader(strings.NewReader(value))
	reader.TrimLeadingSpace = true
	records, err := reader.ReadAll()
	if err != nil || len(records) != 1 {
		return fmt.Errorf(`is %s, which is not a list such as a,"b, c"`, quote(value))
	}
	for _, e := range records[0] {
		if e = strings.TrimSpace(e); e != "" {
			*elements = append(*elements, e)
		}
	}
	return nil
}
