package spec

import "sync"

// Attributes returns the attributes that say what certificate, in the order of the reference.
func Attributes() []Attribute { return table().Attributes() }

var table = sync.OnceValue(func() *Table {
	return NewTable(issuerAttributes(), subjectAttributes(), nameAttributes(), keyAttributes(), requestAttributes())
})

// issuerAttributes returns the rows that say who signs.
func issuerAttributes() []Attribute {
	return []Attribute{
		{
			Name: "profile", Example: "web",
			Meaning: "Name of one of the operator's [profiles](#profiles), whose values count where the pod gives none. " +
				"Absent: that of the pod's namespace, if there is one.",
		}, {
			Name: "issuer-name", Old: true, Group: "issuer", Example: "internal-ca",
			Meaning: "Name of the issuer that signs. Required, unless the driver has a default issuer.",
		}, {
			Name: "issuer-kind", Old: true, Group: "issuer", Example: "ClusterIssuer",
			Meaning: "Kind of the issuer: `Issuer` if absent, or the kind of the driver's default issuer. An `Issuer` is " +
				"looked for in the pod's namespace.",
		}, {
			Name: "issuer-group", Old: true, Group: "issuer", Example: "awspca.cert-manager.io",
			Meaning: "API group of the issuer: `cert-manager.io` if absent, or the group of the driver's default issuer.",
		},
	}
}

// subjectAttributes returns the rows of the subject.
func subjectAttributes() []Attribute {
	return []Attribute{
		{
			Name: "common-name", Old: true, Expanded: true, Example: "web.${POD_NAMESPACE}.svc",
			Meaning: "Common name of the subject: up to 64 characters (RFC 5280, ub-common-name; csi-driver's dialect does " +
				"not check it).",
		}, {
			Name: "organizations", Old: true, Expanded: true, Example: `Shop,"Shop, Inc."`,
			Meaning: "Organizations of the subject, comma-separated; one with a comma in quotation marks.",
		}, {
			Name: "organizationalunits", Old: true, Expanded: true, Example: `Web`,
			Meaning: "Organizational units of the subject, comma-separated; one with a comma in quotation marks.",
		}, {
			Name: "countries", Old: true, Expanded: true, Example: `DE`,
			Meaning: "Countries of the subject, comma-separated; one with a comma in quotation marks.",
		}, {
			Name: "provinces", Old: true, Expanded: true, Example: `Hessen`,
			Meaning: "Provinces of the subject, comma-separated; one with a comma in quotation marks.",
		}, {
			Name: "localities", Old: true, Expanded: true, Example: `Kassel`,
			Meaning: "Localities of the subject, comma-separated; one with a comma in quotation marks.",
		}, {
			Name: "streetaddresses", Old: true, Expanded: true, Example: `"Königsplatz 1"`,
			Meaning: "Street addresses of the subject, comma-separated; one with a comma in quotation marks.",
		}, {
			Name: "postalcodes", Old: true, Expanded: true, Example: `34117`,
			Meaning: "Postal codes of the subject, comma-separated; one with a comma in quotation marks.",
		}, {
			Name: "serialnumber", Old: true, Example: "1234",
			Meaning: "Serial number of the subject: not that of the certificate.",
		}, {
			Name: "literal-subject", Old: true, Expanded: true, Example: "CN=${POD_NAME},OU=web,O=Shop",
			Meaning: "The whole subject as RFC 4514 writes it. The common name and the other fields of the subject do not " +
				"count beside it.",
		},
	}
}

// nameAttributes returns the rows of the other names.
func nameAttributes() []Attribute {
	return []Attribute{
		{
			Name: "dns-names", Old: true, Expanded: true,
			Example: "web.${POD_NAMESPACE}.svc,${POD_NAME}.web.${POD_NAMESPACE}.svc",
			Meaning: "DNS names, comma-separated.",
		}, {
			Name: "ip-sans", Old: true, Expanded: true, Example: "${POD_IPS},fd00::1",
			Meaning: "IP addresses, comma-separated.",
		}, {
			Name: "uri-sans", Old: true, Expanded: true,
			Example: "spiffe://example.org/ns/${POD_NAMESPACE}/sa/${SERVICE_ACCOUNT_NAME}",
			Meaning: "URIs, comma-separated.",
		}, {
			Name: "spiffe", Default: "false", OldDefault: "false", SPIFFEDefault: "true", Example: "true",
			Meaning: "`true` adds the pod's SPIFFE ID to the URIs, of the driver's trust domain (`--trust-domain`) and " +
				"path (`--spiffe-path`).",
		},
	}
}

// keyAttributes returns the rows of the lifetime, the key and its usages.
func keyAttributes() []Attribute {
	return []Attribute{
		{
			Name: "duration", Old: true, Default: "1h", OldDefault: "2160h", Example: "30m",
			Meaning: "Lifetime to ask for, a Go duration of a second to ten years (`87600h`; csi-driver's dialect has " +
				"no longest). The issuer may give another; rotation follows what it gives.",
		}, {
			Name: "key-usages", Old: true, Default: "digital signature,server auth,client auth",
			OldDefault:    "digital signature,key encipherment",
			SPIFFEDefault: "digital signature,key encipherment,server auth,client auth",
			Example:       "digital signature,client auth",
			Meaning:       "Key usages and extended key usages, comma-separated, by cert-manager's names.",
		}, {
			Name: "usages-in-request", Default: "true", OldDefault: "false", SPIFFEDefault: "false", Example: "false",
			Meaning: "`false` leaves key usages and CA flag out of the signing request, for issuers that refuse a " +
				"request with them. The issuer is told of them beside it.",
		}, {
			Name: "is-ca", Old: true, OldDefault: "false", Default: "false", Example: "true",
			Meaning: "`true` asks for the certificate of a CA.",
		}, {
			Name: "key-algorithm", Old: true, Group: "key", Default: "ECDSA", OldDefault: "RSA", Example: "Ed25519",
			Meaning: "`RSA`, `ECDSA` or `Ed25519`, in any case.",
		}, {
			Name: "key-size", Old: true, Group: "key", Example: "384",
			Meaning: "Bits. RSA: 2048 to 8192, 3072 if absent (csi-driver: 2048). ECDSA: 256, 384 or 521, 256 if absent. " +
				"Not with Ed25519.",
		}, {
			Name: "key-encoding", Old: true, Group: "key", Example: "PKCS1",
			Meaning: "`PKCS8` or, for RSA, `PKCS1`. Absent: PKCS8 (csi-driver: PKCS1 for RSA). The bundle is always PKCS#8.",
		},
	}
}

// requestAttributes returns the row that says by whom a certificate is asked for.
func requestAttributes() []Attribute {
	return []Attribute{
		{
			Name: "use-token-request", Example: "false",
			Meaning: "Whether the certificate is asked for [as the pod's service account](#who-asks). Absent: as " +
				"`--use-token-request` says. `true` is for profiles: a pod can't say so by itself.",
		},
	}
}
