package volume

import (
	"slices"
	"sync"

	"github.com/mayfly-csi/mayfly/signer/spec"
)

// Attributes returns all attributes, in the order of the reference: first those that say what certificate.
func Attributes() []spec.Attribute { return slices.Concat(spec.Attributes(), table().Attributes()) }

// table has the attributes that are not about the certificate.
var table = sync.OnceValue(func() *spec.Table { return spec.NewTable(timeAttributes(), fileAttributes()) })

// timeAttributes returns the rows that say when a certificate is asked for.
func timeAttributes() []spec.Attribute {
	return []spec.Attribute{
		{
			Name: "renew-before", Group: "renewal", Old: true, Example: "30%",
			Meaning: "How long before its end a certificate is renewed: a Go duration, or a part of the lifetime, `1%` to " +
				"`99%`. Absent, or not less than the lifetime: a third of the lifetime.",
		}, {
			Name: "renew", Group: "renewal", Default: "true", OldDefault: "true", Example: "false",
			Meaning: "`false`: the certificate is not renewed. For pods that end before it does.",
		}, {
			Name: "renew-window", Group: "renewal", Example: "Mon-Thu,Sun 02:00-04:00 Europe/Berlin",
			Meaning: "Days of the week (absent: all), time of the day and IANA time zone (absent: UTC) for renewals. See " +
				"[when a certificate is renewed](#when-a-certificate-is-renewed).",
		}, {
			Name: "continue-on-not-ready", Example: "true",
			Meaning: "`true`: the pod starts without its certificate while that [can't be asked for " +
				"yet](#volumes-that-wait-for-their-pod). Absent: as `--continue-on-not-ready` says.",
		}, {
			Name: "pod-readiness-gate", Example: "pod-ip:ipv4,pod-condition:PodScheduled",
			Meaning: "What the pod must have before its first certificate is asked for, comma-separated; see [volumes " +
				"that wait for their pod](#volumes-that-wait-for-their-pod). Those of `--pod-readiness-gate` count, " +
				"too.",
		}, {
			Name: "reuse-private-key", Old: true, Default: "false", OldDefault: "false", Example: "true",
			Meaning: "`true` keeps the key when the certificate is renewed. Without it every certificate has a new key.",
		},
	}
}

// fileAttributes returns the rows of the files.
func fileAttributes() []spec.Attribute {
	return []spec.Attribute{
		{
			Name: "ca-file", Old: true, Default: "ca.crt", OldDefault: "ca.crt", Example: "root.pem",
			Meaning: "File of the CA certificates, in layout `pem`.",
		}, {
			Name: "certificate-file", Old: true, Default: "tls.crt", OldDefault: "tls.crt", Example: "cert.pem",
			Meaning: "File of the certificate chain, leaf first, in layout `pem`.",
		}, {
			Name: "privatekey-file", Old: true, Default: "tls.key", OldDefault: "tls.key", Example: "key.pem",
			Meaning: "File of the private key, in layout `pem`.",
		}, {
			Name: "pkcs12-filename", Old: true, Default: "keystore.p12", OldDefault: "keystore.p12", Example: "server.p12",
			Meaning: "File of the keystore, in layout `pkcs12`.",
		}, {
			Name: "pkcs12-enable", Old: true, OnlyOld: true, Instead: "layout", OldDefault: "false", Example: "true",
			Meaning: "`true` adds the keystore of the layout `pkcs12` and not its truststore. `pkcs12-password` is " +
				"required with it.",
		}, {
			Name: "pkcs12-password", Old: true, OnlyOld: true, Instead: "keystore-password", Secret: true,
			Example: "secret",
			Meaning: "Password of that keystore.",
		}, {
			Name: "keystore-password", Secret: true, Example: "secret",
			Meaning: "Password of keystores and truststores, ASCII, and of 6 characters or more, for a JKS. Absent: the " +
				"value `keystore-password` of the Secret that `nodePublishSecretRef` names, or else `changeit`.",
		}, {
			Name: "keystore-alias", Example: "web",
			Meaning: "Alias of the key in keystores: up to 64 printable ASCII characters, of which Java reads capitals as " +
				"small letters. Absent: `certificate` in a JKS, and none in PKCS#12, where Java calls the key `1`.",
		}, {
			Name: "keystore-algorithms", Default: "Modern2023", OldDefault: "LegacyDES", Example: "LegacyDES",
			Meaning: "Algorithms of PKCS#12 stores, by cert-manager's names: `Modern2023` (AES and SHA-2; Java reads it " +
				"from 8u301 on, OpenSSL from 1.1.1), `LegacyDES` (3DES and SHA-1, for older readers) or `LegacyRC2` (RC2, " +
				"3DES and SHA-1, for the oldest; OpenSSL 3 reads it with `-legacy`).",
		}, {
			Name: "fs-group", Group: "owner", Old: true, SPIFFE: true, Example: "1000",
			Meaning: "Group that may read the files, 1 to 4294967294; wins over the pod's fsGroup. With neither, every " +
				"user of the pod may.",
		}, {
			Name: "gid", Group: "owner", Example: "999",
			Meaning: "Group of the files, 0 to 4294967294: as `fs-group`, of which a volume can't have both.",
		}, {
			Name: "uid", Example: "999",
			Meaning: "Owner of the files, 0 to 4294967294. Absent: root.",
		}, {
			Name: "mode", OldDefault: "0440", SPIFFEDefault: "0440", Example: "0400",
			Meaning: "Mode of the files, in octal digits. Absent: `0440`, or `0444` with neither group nor owner. Nobody " +
				"can write, whatever it says.",
		}, {
			Name: "layout", Default: "pem", OldDefault: "pem", Example: "pem,bundle",
			Meaning: "What files the volume offers, comma-separated: one or several of the [layouts](#layouts).",
		}, {
			Name: "trust", OldDefault: "issuer", Example: "issuer,config-map:corp-ca/ca.crt",
			Meaning: "Where the CA certificates come from, comma-separated: one or several [sources](#trust). Absent: " +
				"`issuer`, or what `--trust` says.",
		},
	}
}
