package volume_test

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"

	"github.com/mayfly-csi/mayfly/driver/volume"
)

// Too long for everything, and how a message has it.
var (
	long  = strings.Repeat("x", 300)
	short = `"` + strings.Repeat("x", 64) + `"…`
)

const (
	unexpanded = "- no variables are replaced: see the wrong type"
	variables  = "known are NODE_NAME, POD_IP, POD_IPS, POD_NAME, POD_NAMESPACE, POD_UID, SERVICE_ACCOUNT_NAME"
	misspelt   = `! has an unknown variable "${POD_NAEM}": ` + variables
)

func issuerRows() []row {
	const name, kind, group = ": an issuer's name has up to 253 lower-case letters, digits, dashes and dots", ": known are Issuer and ClusterIssuer, and one of another API needs its issuer-group", ", which is not an API group such as cert-manager.io"
	issuer := func(v volume.Volume) string { return v.Issuer.Name + " " + v.Issuer.Kind + " " + v.Issuer.Group }
	return []row{
		{"issuer-name", issuer, "", [kinds]cell{
			absent:      {want: "! is required: the name of the issuer that signs"},
			empty:       {want: "! is required: the name of the issuer that signs"},
			wrongType:   {value: "my issuer", want: `! is "my issuer"` + name},
			outOfRange:  {value: "Internal-CA", want: `! is "Internal-CA"` + name},
			conflicting: {value: "x/y", with: "issuer-group=example.org", want: `! is "x/y"` + name, old: "= x/y Issuer example.org"},
			tooLong:     {value: long, want: "! is " + short + name},
			nonASCII:    {value: "bücher", want: `! is "b\u00fccher"` + name},
			path:        {value: "../ca", want: `! is "../ca"` + name},
			variable:    {value: "${POD_NAME}", want: `! is "${POD_NAME}"` + name},
			unknownKey:  {value: "issuer-nam"},
		}},
		{"issuer-kind", issuer, "", [kinds]cell{
			absent:      {want: "= ca Issuer cert-manager.io"},
			empty:       {want: "= ca Issuer cert-manager.io"},
			wrongType:   {value: "clusterissuer", want: `! is "clusterissuer"` + kind},
			outOfRange:  {value: "AWSPCAIssuer", want: `! is "AWSPCAIssuer"` + kind},
			conflicting: {value: "a b", with: "issuer-group=example.org", want: `! is "a b", which is not a kind such as ClusterIssuer`, old: "= ca a b example.org"},
			tooLong:     {value: long, want: "! is " + short + kind},
			nonASCII:    {value: "Ïssuer", want: `! is "\u00cfssuer"` + kind},
			path:        {value: "../Issuer", want: `! is "../Issuer"` + kind},
			variable:    {value: "${POD_NAME}", want: `! is "${POD_NAME}"` + kind},
			unknownKey:  {value: "issuer-knid"},
		}},
		{"issuer-group", issuer, "", [kinds]cell{
			absent:      {want: "= ca Issuer cert-manager.io"},
			empty:       {want: "= ca Issuer cert-manager.io"},
			wrongType:   {value: "example.org/v1", want: `! is "example.org/v1"` + group, old: "= ca Issuer example.org/v1"},
			outOfRange:  {value: "Example.org", want: `! is "Example.org"` + group, old: "= ca Issuer Example.org"},
			conflicting: {value: "example.org", with: "issuer-kind=AWSPCAIssuer", want: "= ca AWSPCAIssuer example.org"},
			tooLong:     {value: long, want: "! is " + short + group, old: "= ca Issuer " + long},
			nonASCII:    {value: "ü.org", want: `! is "\u00fc.org"` + group, old: "= ca Issuer ü.org"},
			path:        {value: "../x", want: `! is "../x"` + group, old: "= ca Issuer ../x"},
			variable:    {value: "$POD_NAME", want: `! is "$POD_NAME"` + group, old: "= ca Issuer $POD_NAME"},
			unknownKey:  {value: "isuer-group"},
		}},
	}
}

// subject is a row of a field of the subject that has up to a number of characters; a list has fields with commas between them.
func subject(name, kind string, longest string, list bool) row {
	r := row{name, func(v volume.Volume) string { return v.Subject.String() }, "", [kinds]cell{
		absent:      {want: "= "},
		empty:       {want: "= "},
		wrongType:   {value: "a\nb", want: `! has "a\nb", with a control character`, old: "= " + kind + "=a\nb"},
		outOfRange:  {value: "${POD_NAME", want: `! is "${POD_NAME", with a variable that has no end or no name`, old: "= " + kind + "=POD_NAME"},
		conflicting: {value: "x", with: "literal-subject=CN=y", want: "= " + kind + "=x"}, // The literal one counts: TestSubjects.
		tooLong:     {value: long, want: "! has " + short + ", of 300 characters: at most " + longest, old: "= " + kind + "=" + long},
		nonASCII:    {value: "Straße", want: "= " + kind + "=Straße"},
		path:        {value: "../x", want: "= " + kind + "=../x"},
		variable:    {value: "${POD_NAEM}", want: misspelt},
		unknownKey:  {value: name[:len(name)-1]},
	}}
	if list {
		const bad = `, which is not a list such as a,"b, c"`
		r.cells[wrongType] = cell{value: "a\nb", want: `! is "a\nb"` + bad}
		r.cells[outOfRange] = cell{value: ",", want: `! is ",", which names nothing`, old: "= "}
		r.cells[path] = cell{value: "\"a\nb\"", want: `! has "a\nb", with a control character`, old: "= " + kind + "=a\nb"}
	}
	return r
}

func subjectRows() []row {
	rows := []row{
		subject("common-name", "CN", "64", false), subject("organizations", "O", "64", true), subject("organizationalunits", "OU", "64", true),
		subject("countries", "C", "", true), subject("provinces", "ST", "128", true), subject("localities", "L", "128", true),
		subject("streetaddresses", "STREET", "128", true), subject("postalcodes", "POSTALCODE", "40", true), subject("serialnumber", "SERIALNUMBER", "64", false),
	}
	const code, serial = ", which is not the code of a country, such as DE", ", which has more than letters, digits, spaces and '()+,-./:=?"
	c, s := &rows[3].cells, &rows[8].cells
	c[conflicting].value, c[conflicting].want = "DE", "= C=DE"
	c[wrongType] = cell{value: "DE,DEU", want: `! has "DEU"` + code, old: "= C=DE+C=DEU"}
	c[tooLong].want = "! has " + short + code
	c[nonASCII] = cell{value: "ÄÖ", want: `! has "\u00c4\u00d6"` + code, old: "= C=ÄÖ"}
	s[outOfRange] = cell{value: "a_b", want: `! has "a_b"` + serial, old: "= SERIALNUMBER=a_b"}
	s[nonASCII] = cell{value: "ß", want: `! has "\u00df"` + serial, old: "= SERIALNUMBER=ß"}
	s[variable] = cell{value: "${POD_NAME}", want: `! has "${POD_NAME}"` + serial, old: "= SERIALNUMBER=${POD_NAME}"}
	const dn = ", which is not a distinguished name (RFC 4514) such as CN=web,O=Shop: "
	const types = `! has the attribute type "X": known are C, CN, DC, L, O, OU, POSTALCODE, SERIALNUMBER, ST, STREET, UID, and object identifiers`
	return append(rows, row{"literal-subject", rawSubject, "", [kinds]cell{
		absent:      {want: "= "},
		empty:       {want: "= "},
		wrongType:   {value: "web", want: `! is "web"` + dn + "DN ended with incomplete type, value pair"},
		outOfRange:  {value: "CN=,C=Germany,X=y", want: types + `; has "Germany"` + code + `; has an empty CN`, old: types},
		conflicting: {value: "CN=a", with: "common-name=b", want: "= CN=a"},
		tooLong:     {value: "O=" + long, want: "! has " + short + ", of 300 characters: at most 64", old: "= O=" + long},
		nonASCII:    {value: "O=ß", want: "= O=ß"},
		path:        {value: "CN=a\nb", want: `! has "a\nb", with a control character`, old: "= CN=a\nb"},
		variable:    {value: "CN=${POD_NAEM}", want: misspelt},
		unknownKey:  {value: "literalsubject"},
	}})
}

func rawSubject(v volume.Volume) string {
	var sequence pkix.RDNSequence
	if _, err := asn1.Unmarshal(v.RawSubject, &sequence); err != nil && v.RawSubject != nil {
		return err.Error()
	}
	return sequence.String()
}

func nameRows() []row {
	dns := func(v volume.Volume) string { return strings.Join(v.DNSNames, " ") }
	ips := func(v volume.Volume) string { return joined(v.IPs) }
	uris := func(v volume.Volume) string { return joined(v.URIs) }
	const ip, uri, char = ", which is not an IP address such as 10.0.0.1 or fd00::1", ", which is not a URI such as spiffe://example.org/web", ", with a character that a URI has only as %20 and the like (RFC 3986, section 2.1)"
	return []row{
		{"dns-names", dns, "", [kinds]cell{
			absent:      {want: "! is missing: ask for at least one of dns-names, uri-sans, spiffe, ip-sans, common-name and literal-subject", old: "= "},
			empty:       {want: "! is missing: ask for at least one of dns-names, uri-sans, spiffe, ip-sans, common-name and literal-subject", old: "= "},
			wrongType:   {value: "10.0.0.1", want: `! has "10.0.0.1", which is not a DNS name: IP addresses are for ip-sans`, old: "= 10.0.0.1"},
			outOfRange:  {value: "web.", want: `! has "web.", which is not a DNS name here: leave the last dot out`, old: "= web."},
			conflicting: {value: "web, web,*.web", want: "= web *.web"},
			tooLong:     {value: long, want: "! has a DNS name of 300 characters, " + short + ": the longest is 253", old: "= " + long},
			nonASCII:    {value: "bücher.example", want: `! has "b\u00fccher.example", which is not a DNS name: write it in ASCII, as xn--…`},
			path:        {value: "../web,a\nb", want: `! has "../web", which is not a DNS name; has "a\nb", which is not a DNS name`, old: `! has "a\nb", which is not a DNS name`},
			variable:    {value: "${POD_NAEM}", want: misspelt},
			unknownKey:  {value: "dnsnames"},
		}},
		{"ip-sans", ips, "", [kinds]cell{
			absent:      {want: "= "},
			empty:       {want: "= "},
			wrongType:   {value: "localhost", want: `! has "localhost"` + ip},
			outOfRange:  {value: "10.0.0.256,10.0.0.0/24,fe80::1%eth0", want: `! has "10.0.0.256"` + ip + `; has "10.0.0.0/24"` + ip + `; has "fe80::1%eth0"` + ip},
			conflicting: {value: "10.0.0.1,::ffff:10.0.0.1", want: "= 10.0.0.1"},
			tooLong:     {value: long, want: "! has " + short + ip},
			nonASCII:    {value: "１0.0.0.1", want: `! has "\uff110.0.0.1"` + ip},
			path:        {value: "../10.0.0.1", want: `! has "../10.0.0.1"` + ip},
			variable:    {value: "${POD_NAEM}", want: misspelt},
			unknownKey:  {value: "ip-san"},
		}},
		{"uri-sans", uris, "", [kinds]cell{
			absent:      {want: "= "},
			empty:       {want: "= "},
			wrongType:   {value: "web", want: `! has "web"` + uri},
			outOfRange:  {value: "spiffe://Example.org/a", want: `! has "spiffe://Example.org/a", which is not a SPIFFE ID: trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores`, old: "= spiffe://Example.org/a"},
			conflicting: {value: "spiffe://a/b,spiffe://a/b,spiffe://a/c", want: `! has "spiffe://a/c", a second SPIFFE ID: a certificate has one (SPIFFE's X509-SVID, section 2)`, old: "= spiffe://a/b spiffe://a/c"},
			tooLong:     {value: "https://" + long, want: "= https://" + long},
			nonASCII:    {value: "https://a/ü", want: `! has "https://a/\u00fc"` + char, old: "= https://a/%C3%BC"},
			path:        {value: "spiffe://a/../b,/etc", want: `! has "spiffe://a/../b", which is not a SPIFFE ID: path cannot contain dot segments; has "/etc"` + uri, old: "= spiffe://a/../b /etc"},
			variable:    {value: "spiffe://a/${POD_NAEM}", want: misspelt},
			unknownKey:  {value: "uris-sans"},
		}},
		truth("spiffe", uris, cell{value: "true", with: "uri-sans=spiffe://a/b", want: "!! csi.mayfly.dev/uri-sans has a SPIFFE ID, and spiffe makes spiffe://example.org/ns/shop/sa/web: give one of them"}, "spife", ""),
	}
}
