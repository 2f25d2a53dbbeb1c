package volume

import (
	"slices"
	"strings"
	"sync"
)

// An Attribute is one row of what a pod may ask for.
type Attribute struct {
	Name       string // What follows the prefix.
	Old        bool   // In csi-driver's dialect its prefix is OldPrefix.
	OnlyOld    bool   // Known in csi-driver's dialect alone.
	Instead    string // The name of the attribute that stands for it in the others.
	Default    string // In our dialect.
	OldDefault string // In csi-driver's dialect.
	Expanded   bool   // Variables are replaced.
	Secret     bool   // A password: taken as it is.
	Meaning    string // One line of the reference.
	Example    string

	set func(p *parser, value string) error
}

// Attributes returns all rows, in the order of the reference.
func Attributes() []Attribute { return slices.Clone(table()) }

var table = sync.OnceValue(func() []Attribute {
	return slices.Concat(issuerAttributes(), subjectAttributes(), nameAttributes(),
		timeAttributes(), keyAttributes(), fileAttributes())
})

// issuerAttributes returns the rows that say who signs.
func issuerAttributes() []Attribute {
	return []Attribute{
		{
			Name: "profile", Example: "web", set: (*parser).setProfile,
			Meaning: "Name of one of the operator's [profiles](#profiles), whose values count where the pod gives none. " +
				"Absent: that of the pod's namespace, if there is one.",
		}, {
			Name: "issuer-name", Old: true, Example: "internal-ca", set: (*parser).setIssuerName,
			Meaning: "Name of the issuer that signs. Required, unless the driver has a default issuer.",
		}, {
			Name: "issuer-kind", Old: true, Example: "ClusterIssuer", set: (*parser).setIssuerKind,
			Meaning: "Kind of the issuer: `Issuer` if absent, or the kind of the driver's default issuer. An `Issuer` is " +
				"looked for in the pod's namespace.",
		}, {
			Name: "issuer-group", Old: true, Example: "awspca.cert-manager.io", set: (*parser).setIssuerGroup,
			Meaning: "API group of the issuer: `cert-manager.io` if absent, or the group of the driver's default issuer.",
		},
	}
}

// subjectAttributes returns the rows of the subject.
func subjectAttributes() []Attribute {
	return []Attribute{
		{
			Name: "common-name", Old: true, Expanded: true, Example: "${SERVICE_ACCOUNT_NAME}.${POD_NAMESPACE}",
			set: (*parser).setCommonName,
			Meaning: "Common name of the subject: up to 64 characters (RFC 5280, ub-common-name; csi-driver's dialect does " +
				"not check it).",
		}, {
			Name: "organizations", Old: true, Expanded: true, Example: `Shop,"Shop, Inc."`, set: (*parser).setOrganizations,
			Meaning: "Organizations of the subject, comma-separated; one with a comma in quotation marks.",
		}, {
			Name: "organizationalunits", Old: true, Expanded: true, Example: `Web`, set: (*parser).setOrganizationalUnits,
			Meaning: "Organizational units of the subject, comma-separated; one with a comma in quotation marks.",
		}, {
			Name: "countries", Old: true, Expanded: true, Example: `DE`, set: (*parser).setCountries,
			Meaning: "Countries of the subject, comma-separated; one with a comma in quotation marks.",
		}, {
			Name: "provinces", Old: true, Expanded: true, Example: `Hessen`, set: (*parser).setProvinces,
			Meaning: "Provinces of the subject, comma-separated; one with a comma in quotation marks.",
		}, {
			Name: "localities", Old: true, Expanded: true, Example: `Kassel`, set: (*parser).setLocalities,
			Meaning: "Localities of the subject, comma-separated; one with a comma in quotation marks.",
		}, {
			Name: "streetaddresses", Old: true, Expanded: true, Example: `"Königsplatz 1"`, set: (*parser).setStreetAddresses,
			Meaning: "Street addresses of the subject, comma-separated; one with a comma in quotation marks.",
		}, {
			Name: "postalcodes", Old: true, Expanded: true, Example: `34117`, set: (*parser).setPostalCodes,
			Meaning: "Postal codes of the subject, comma-separated; one with a comma in quotation marks.",
		}, {
			Name: "serialnumber", Old: true, Example: "1234", set: (*parser).setSerialNumber,
			Meaning: "Serial number of the subject: not that of the certificate.",
		}, {
			Name: "literal-subject", Old: true, Expanded: true, Example: "CN=${POD_NAME},OU=web,O=Shop",
			set: (*parser).setLiteralSubject,
			Meaning: "The whole subject as RFC 4514 writes it. The common name and the other fields of the subject do not " +
				"count beside it.",
		},
	}
}

// nameAttributes returns the rows of the other names.
func nameAttributes() []Attribute {
	return []Attribute{
		{
			Name: "dns-names", Old: true, Expanded: true, Example: "web.${POD_NAMESPACE}.svc,${POD_NAME}.web",
			set:     (*parser).setDNSNames,
			Meaning: "DNS names, comma-separated.",
		}, {
			Name: "ip-sans", Old: true, Expanded: true, Example: "${POD_IPS},fd00::1", set: (*parser).setIPSANs,
			Meaning: "IP addresses, comma-separated.",
		}, {
			Name: "uri-sans", Old: true, Expanded: true,
			Example: "spiffe://example.org/ns/${POD_NAMESPACE}/sa/${SERVICE_ACCOUNT_NAME}",
			set:     (*parser).setURISANs,
			Meaning: "URIs, comma-separated.",
		}, {
			Name: "spiffe", Default: "false", OldDefault: "false", Example: "true", set: (*parser).setSPIFFE,
			Meaning: "`true` adds the pod's SPIFFE ID to the URIs, of the driver's trust domain (`--trust-domain`) and " +
				"path (`--spiffe-path`).",
		},
	}
}

// timeAttributes returns the rows that say when, and by whom, a certificate is asked for.
func timeAttributes() []Attribute {
	return []Attribute{
		{
			Name: "duration", Old: true, Default: "1h", OldDefault: "2160h", Example: "30m", set: (*parser).setLifetime,
			Meaning: "Lifetime to ask for, a Go duration of a second to ten years (`87600h`; csi-driver's dialect has " +
				"no longest). The issuer may give another; rotation follows what it gives.",
		}, {
			Name: "renew-before", Old: true, Example: "30%", set: (*parser).setRenewBefore,
			Meaning: "How long before its end a certificate is renewed: a Go duration, or a part of the lifetime, `1%` to " +
				"`99%`. Absent, or not less than the lifetime: a third of the lifetime.",
		}, {
			Name: "renew", Default: "true", OldDefault: "true", Example: "false", set: (*parser).setRenew,
			Meaning: "`false`: the certificate is not renewed. For pods that end before it does.",
		}, {
			Name: "renew-window", Example: "Mon-Thu,Sun 02:00-04:00 Europe/Berlin", set: (*parser).setRenewWindow,
			Meaning: "Days of the week (absent: all), time of the day and IANA time zone (absent: UTC) for renewals. See " +
				"[when a certificate is renewed](#when-a-certificate-is-renewed).",
		}, {
			Name: "use-token-request", Example: "false", set: (*parser).setUseTokenRequest,
			Meaning: "Whether the certificate is asked for [as the pod's service account](#who-asks). Absent: as " +
				"`--use-token-request` says. `true` is for profiles: a pod can't say so by itself.",
		}, {
			Name: "continue-on-not-ready", Example: "true", set: (*parser).setContinueOnNotReady,
			Meaning: "`true`: the pod starts without its certificate while that [can't be asked for " +
				"yet](#volumes-that-wait-for-their-pod). Absent: as `--continue-on-not-ready` says.",
		}, {
			Name: "pod-readiness-gate", Example: "pod-ip:ipv4,pod-condition:PodScheduled", set: (*parser).setGates,
			Meaning: "What the pod must have before its first certificate is asked for, comma-separated; see [volumes " +
				"that wait for their pod](#volumes-that-wait-for-their-pod). Those of `--pod-readiness-gate` count, " +
				"too.",
		},
	}
}

// keyAttributes returns the rows of the key and its usages.
func keyAttributes() []Attribute {
	return []Attribute{
		{
			Name: "key-usages", Old: true, Default: "digital signature,server auth,client auth",
			OldDefault: "digital signature,key encipherment", Example: "digital signature,client auth",
			set:     (*parser).setKeyUsages,
			Meaning: "Key usages and extended key usages, comma-separated, by cert-manager's names.",
		}, {
			Name: "usages-in-request", Default: "true", OldDefault: "false", Example: "false",
			set: (*parser).setUsagesInRequest,
			Meaning: "`false` leaves key usages and CA flag out of the signing request, for issuers that refuse a " +
				"request with them. The issuer is told of them beside it.",
		}, {
			Name: "is-ca", Old: true, OldDefault: "false", Default: "false", Example: "true", set: (*parser).setIsCA,
			Meaning: "`true` asks for the certificate of a CA.",
		}, {
			Name: "key-algorithm", Old: true, Default: "ECDSA", OldDefault: "RSA", Example: "Ed25519",
			set:     (*parser).setKeyAlgorithm,
			Meaning: "`RSA`, `ECDSA` or `Ed25519`, in any case.",
		}, {
			Name: "key-size", Old: true, Example: "384", set: (*parser).setKeySize,
			Meaning: "Bits. RSA: 2048 to 8192, 3072 if absent (csi-driver: 2048). ECDSA: 256, 384 or 521, 256 if absent. " +
				"Not with Ed25519.",
		}, {
			Name: "key-encoding", Old: true, Example: "PKCS1", set: (*parser).setKeyEncoding,
			Meaning: "`PKCS8` or, for RSA, `PKCS1`. Absent: PKCS8 (csi-driver: PKCS1 for RSA). The bundle is always PKCS#8.",
		}, {
			Name: "reuse-private-key", Old: true, Default: "false", OldDefault: "false", Example: "true",
			set:     (*parser).setReuseKey,
			Meaning: "`true` keeps the key when the certificate is renewed. Without it every certificate has a new key.",
		},
	}
}

// fileAttributes returns the rows of the files.
func fileAttributes() []Attribute {
	return []Attribute{
		{
			Name: "ca-file", Old: true, Default: "ca.crt", OldDefault: "ca.crt", Example: "root.pem",
			set:     (*parser).setCAFile,
			Meaning: "File of the CA certificates, in layout `pem`.",
		}, {
			Name: "certificate-file", Old: true, Default: "tls.crt", OldDefault: "tls.crt", Example: "cert.pem",
			set:     (*parser).setCertificateFile,
			Meaning: "File of the certificate chain, leaf first, in layout `pem`.",
		}, {
			Name: "privatekey-file", Old: true, Default: "tls.key", OldDefault: "tls.key", Example: "key.pem",
			set:     (*parser).setKeyFile,
			Meaning: "File of the private key, in layout `pem`.",
		}, {
			Name: "pkcs12-filename", Old: true, Default: "keystore.p12", OldDefault: "keystore.p12", Example: "server.p12",
			set:     (*parser).setPKCS12File,
			Meaning: "File of the keystore, in layout `pkcs12`.",
		}, {
			Name: "pkcs12-enable", Old: true, OnlyOld: true, Instead: "layout", OldDefault: "false", Example: "true",
			set: (*parser).setPKCS12Enable,
			Meaning: "`true` adds the keystore of the layout `pkcs12` and not its truststore. `pkcs12-password` is " +
				"required with it.",
		}, {
			Name: "pkcs12-password", Old: true, OnlyOld: true, Instead: "keystore-password", Secret: true,
			Example: "secret", set: (*parser).setPKCS12Password,
			Meaning: "Password of that keystore.",
		}, {
			Name: "keystore-password", Secret: true, Example: "secret", set: (*parser).setKeystorePassword,
			Meaning: "Password of keystores and truststores, ASCII, and of 6 characters or more, for a JKS. Absent: the " +
				"value `keystore-password` of the Secret that `nodePublishSecretRef` names, or else `changeit`.",
		}, {
			Name: "keystore-alias", Example: "web", set: (*parser).setKeystoreAlias,
			Meaning: "Alias of the key in keystores: up to 64 printable ASCII characters, of which Java reads capitals as " +
				"small letters. Absent: `certificate` in a JKS, and none in PKCS#12, where Java calls the key `1`.",
		}, {
			Name: "keystore-algorithms", Default: "Modern2023", OldDefault: "LegacyDES", Example: "LegacyDES",
			set: (*parser).setKeystoreAlgorithms,
			Meaning: "Algorithms of PKCS#12 stores, by cert-manager's names: `Modern2023` (AES and SHA-2; Java reads it " +
				"from 8u301 on, OpenSSL from 1.1.1), `LegacyDES` (3DES and SHA-1, for older readers) or `LegacyRC2` (RC2, " +
				"3DES and SHA-1, for the oldest; OpenSSL 3 reads it with `-legacy`).",
		}, {
			Name: "fs-group", Old: true, Example: "1000", set: (*parser).setFSGroup,
			Meaning: "Group that may read the files, 1 to 4294967294; wins over the pod's fsGroup. With neither, every " +
				"user of the pod may.",
		}, {
			Name: "gid", Example: "999", set: (*parser).setGID,
			Meaning: "Group of the files, 0 to 4294967294: as `fs-group`, of which a volume can't have both.",
		}, {
			Name: "uid", Example: "999", set: (*parser).setUID,
			Meaning: "Owner of the files, 0 to 4294967294. Absent: root.",
		}, {
			Name: "mode", OldDefault: "0440", Example: "0400", set: (*parser).setMode,
			Meaning: "Mode of the files, in octal digits. Absent: `0440`, or `0444` with neither group nor owner. Nobody " +
				"can write, whatever it says.",
		}, {
			Name: "layout", Default: "pem", OldDefault: "pem", Example: "pem,bundle", set: (*parser).setLayout,
			Meaning: "What files the volume offers, comma-separated: one or several of the [layouts](#layouts).",
		}, {
			Name: "trust", OldDefault: "issuer", Example: "issuer,config-map:corp-ca/ca.crt", set: (*parser).setTrust,
			Meaning: "Where the CA certificates come from, comma-separated: one or several [sources](#trust). Absent: " +
				"`issuer`, or what `--trust` says.",
		},
	}
}

// trim drops the spaces around a value, which in a password may be meant.
func (a Attribute) trim(value string) string {
	if a.Secret {
		return value
	}
	return strings.TrimSpace(value)
}
