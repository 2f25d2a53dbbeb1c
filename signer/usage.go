package signer

import (
	"crypto/x509"
	"fmt"
	"slices"
)

// A Usage is a key usage or extended key usage, by cert-manager's name for it
// (cert-manager pkg/apis/certmanager/v1/types.go, KeyUsage).
type Usage string

// The usages that a volume has when it asks for none.
const (
	DigitalSignature Usage = "digital signature"
	KeyEncipherment  Usage = "key encipherment"
	ServerAuth       Usage = "server auth"
	ClientAuth       Usage = "client auth"
)

type usage struct {
	name Usage
	key  x509.KeyUsage
	ext  x509.ExtKeyUsage
}

// usages returns all usages, in the order of RFC 5280, sections 4.2.1.3 and 4.2.1.12: a row has a key usage or else
// an extended one.
func usages() []usage {
	return []usage{
		{name: "signing", key: x509.KeyUsageDigitalSignature},
		{name: DigitalSignature, key: x509.KeyUsageDigitalSignature},
		{name: "content commitment", key: x509.KeyUsageContentCommitment},
		{name: KeyEncipherment, key: x509.KeyUsageKeyEncipherment},
		{name: "data encipherment", key: x509.KeyUsageDataEncipherment},
		{name: "key agreement", key: x509.KeyUsageKeyAgreement},
		{name: "cert sign", key: x509.KeyUsageCertSign},
		{name: "crl sign", key: x509.KeyUsageCRLSign},
		{name: "encipher only", key: x509.KeyUsageEncipherOnly},
		{name: "decipher only", key: x509.KeyUsageDecipherOnly},
		{name: "any", ext: x509.ExtKeyUsageAny},
		{name: ServerAuth, ext: x509.ExtKeyUsageServerAuth},
		{name: ClientAuth, ext: x509.ExtKeyUsageClientAuth},
		{name: "code signing", ext: x509.ExtKeyUsageCodeSigning},
		{name: "email protection", ext: x509.ExtKeyUsageEmailProtection},
		{name: "s/mime", ext: x509.ExtKeyUsageEmailProtection},
		{name: "ipsec end system", ext: x509.ExtKeyUsageIPSECEndSystem},
		{name: "ipsec tunnel", ext: x509.ExtKeyUsageIPSECTunnel},
		{name: "ipsec user", ext: x509.ExtKeyUsageIPSECUser},
		{name: "timestamping", ext: x509.ExtKeyUsageTimeStamping},
		{name: "ocsp signing", ext: x509.ExtKeyUsageOCSPSigning},
		{name: "microsoft sgc", ext: x509.ExtKeyUsageMicrosoftServerGatedCrypto},
		{name: "netscape sgc", ext: x509.ExtKeyUsageNetscapeServerGatedCrypto},
	}
}

// Usages returns the names of all usages.
func Usages() []string {
	var names []string
	for _, u := range usages() {
		names = append(names, string(u.name))
	}
	return names
}

// X509 returns the usages as crypto/x509 has them. An unknown usage is an error.
func X509(wanted []Usage) (key x509.KeyUsage, ext []x509.ExtKeyUsage, err error) {
	all := usages()
	for _, name := range wanted {
		i := slices.IndexFunc(all, func(u usage) bool { return u.name == name })
		switch {
		case i < 0:
			return 0, nil, fmt.Errorf("unknown key usage %q", name)
		case all[i].key != 0:
			key |= all[i].key
		case !slices.Contains(ext, all[i].ext):
			ext = append(ext, all[i].ext)
		}
	}
	return key, ext, nil
}

// UsagesOf returns the usages of a certificate. Extended ones that cert-manager has no name for are OIDs.
func UsagesOf(c *x509.Certificate) (all []Usage) {
	for _, u := range usages() {
		switch {
		case u.name == "signing" || u.name == "s/mime": // Other names of usages in the table.
		case u.key != 0 && c.KeyUsage&u.key != 0, u.key == 0 && slices.Contains(c.ExtKeyUsage, u.ext):
			all = append(all, u.name)
		}
	}
	for _, oid := range c.UnknownExtKeyUsage {
		all = append(all, Usage(oid.String()))
	}
	return all
}
