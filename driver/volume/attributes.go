package volume

import (
	"strings"
)

// An Attribute is one row of what a pod may ask for.
type Attribute struct {
	Name       string // What follows the prefix.
	Old        bool   // Known under OldPrefix, too.
	Default    string // Under Prefix.
	OldDefault string // Under OldPrefix.
	Expanded   bool   // Variables are replaced.
	Meaning    string // One line of the reference.
	Example    string

	set func(p *parser, value string) error
}

// Attributes are all rows, in the order of the reference.
func Attributes() []Attribute {
	return []Attribute{
		{
			Name: "issuer-name", Old: true, Example: "internal-ca", set: (*parser).issuerName,
			Meaning: "Name of the issuer that signs. Required, unless the driver has a default issuer.",
		}, {
			Name: "issuer-kind", Old: true, Default: "Issuer", OldDefault: "Issuer", Example: "ClusterIssuer", set: (*parser).issuerKind,
			Meaning: "Kind of the issuer. An `Issuer` is looked for in the pod's namespace.",
		}, {
			Name: "issuer-group", Old: true, Default: "cert-manager.io", OldDefault: "cert-manager.io", Example: "awspca.cert-manager.io", set: (*parser).issuerGroup,
			Meaning: "API group of the issuer.",
		}, {
			Name: "common-name", Old: true, Expanded: true, Example: "${SERVICE_ACCOUNT_NAME}.${POD_NAMESPACE}", set: (*parser).commonName,
			Meaning: "Common name of the subject: up to 64 characters (RFC 5280, ub-common-name; the old prefix does not check it).",
		}, {
			Name: "dns-names", Old: true, Expanded: true, Example: "web.${POD_NAMESPACE}.svc,${POD_NAME}.web", set: (*parser).dnsNames,
			Meaning: "DNS names, comma-separated.",
		}, {
			Name: "ip-sans", Old: true, Example: "10.0.0.1,fd00::1", set: (*parser).ipSANs,
			Meaning: "IP addresses, comma-separated.",
		}, {
			Name: "uri-sans", Old: true, Expanded: true, Example: "spiffe://example.org/ns/${POD_NAMESPACE}/sa/${SERVICE_ACCOUNT_NAME}", set: (*parser).uriSANs,
			Meaning: "URIs, comma-separated.",
		}, {
			Name: "duration", Old: true, Default: "1h", OldDefault: "2160h", Example: "30m", set: (*parser).duration,
			Meaning: "Lifetime to ask for, a Go duration of at least a second. The issuer may give another; rotation follows what it gives.",
		}, {
			Name: "renew-before", Old: true, Example: "10m", set: (*parser).renewBefore,
			Meaning: "How long before its end a certificate is renewed. Absent, or not less than the lifetime: a third of the lifetime.",
		}, {
			Name: "key-usages", Old: true, Default: "digital signature,server auth,client auth", OldDefault: "digital signature,key encipherment", Example: "digital signature,client auth", set: (*parser).keyUsages,
			Meaning: "Key usages and extended key usages, comma-separated, by cert-manager's names.",
		}, {
			Name: "key-algorithm", Old: true, Default: "ECDSA", OldDefault: "RSA", Example: "Ed25519", set: (*parser).keyAlgorithm,
			Meaning: "`RSA`, `ECDSA` or `Ed25519`, in any case.",
		}, {
			Name: "key-size", Old: true, Example: "384", set: (*parser).keySize,
			Meaning: "Bits. RSA: 2048 to 8192, 3072 if absent (old prefix: 2048). ECDSA: 256, 384 or 521, 256 if absent. Not with Ed25519.",
		}, {
			Name: "key-encoding", Old: true, Example: "PKCS1", set: (*parser).keyEncoding,
			Meaning: "`PKCS8` or, for RSA, `PKCS1`. Absent: PKCS8 (old prefix: PKCS1 for RSA). The bundle is always PKCS#8.",
		}, {
			Name: "ca-file", Old: true, Default: "ca.crt", OldDefault: "ca.crt", Example: "root.pem", set: (*parser).caFile,
			Meaning: "File of the issuer's CA certificates, in layout `pem`.",
		}, {
			Name: "certificate-file", Old: true, Default: "tls.crt", OldDefault: "tls.crt", Example: "cert.pem", set: (*parser).certificateFile,
			Meaning: "File of the certificate chain, leaf first, in layout `pem`.",
		}, {
			Name: "privatekey-file", Old: true, Default: "tls.key", OldDefault: "tls.key", Example: "key.pem", set: (*parser).keyFile,
			Meaning: "File of the private key, in layout `pem`.",
		}, {
			Name: "fs-group", Old: true, Example: "1000", set: (*parser).fsGroup,
			Meaning: "Group that may read the files, 1 to 4294967295; wins over the pod's fsGroup. With neither, every user of the pod may.",
		}, {
			Name: "layout", Default: "pem", OldDefault: "pem", Example: "pem,bundle", set: (*parser).layout,
			Meaning: "What files the volume offers, comma-separated: `pem` (three files, named above), `bundle` (`credential-bundle.pem`: PKCS#8 key, then the chain; one file, so always a matching pair).",
		},
	}
}

// standard is the attribute's default.
func (a Attribute) standard(old bool) string {
	if old {
		return a.OldDefault
	}
	return a.Default
}

// given is the attribute's value in attributes. Both prefixes at once are an error.
func (a Attribute) given(attributes map[string]string) (key, value string, err error) {
	value, ok := attributes[Prefix+a.Name]
	oldValue, oldOK := "", false
	if a.Old {
		oldValue, oldOK = attributes[OldPrefix+a.Name]
	}
	switch {
	case ok && oldOK:
		return "", "", problem(Prefix+a.Name, "is given as %s, too: give one of them", OldPrefix+a.Name)
	case oldOK:
		return OldPrefix + a.Name, strings.TrimSpace(oldValue), nil
	default:
		return Prefix + a.Name, strings.TrimSpace(value), nil
	}
}
