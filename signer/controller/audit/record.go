package audit

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"net/url"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/mayfly-csi/mayfly/signer"
)

// The kinds of records.
const (
	Decision    = "decision"
	Certificate = "certificate"
	Gap         = "gap"
	Limit       = "limit"
)

// The values of [Record.Decision].
const (
	Approved = "approved"
	Denied   = "denied"
	Failed   = "failed" // It was approved, and can't be signed.
)

// The values of [Record.Certificate].
const (
	Issued  = "issued"
	Unknown = "unknown" // The request was deleted before its certificate was seen, or the certificate can't be read.
)

// The values of [Record.Mode]: who asked, and how.
const (
	Driver         = "driver"          // A node plugin, by a CertificateRequest.
	PodCertificate = "pod-certificate" // A node plugin as its node, by a PodCertificateRequest.
	Native         = "native"          // A kubelet for a podCertificate volume.
)

// A Record is one line of the audit record. docs/audit.md describes its fields.
type Record struct {
	Audit string    `json:"audit"`
	Time  time.Time `json:"time"` // [Log.Write] sets it.

	Decision    string `json:"decision,omitempty"`
	Reason      string `json:"reason,omitempty"`
	Message     string `json:"message,omitempty"`
	Certificate string `json:"certificate,omitempty"`
	Mode        string `json:"mode,omitempty"`

	Request *Request `json:"request,omitempty"`
	Pod
	Issuer *Issuer  `json:"issuer,omitempty"`
	Policy []string `json:"policy,omitempty"` // The CertificatePolicies that select the pod.
	Content
	Validity
	Interval
}

// A Request is the object by which the certificate was asked for. It is in the pod's namespace.
type Request struct {
	Kind string    `json:"kind"`
	Name string    `json:"name"`
	UID  types.UID `json:"uid"`
}

// A Pod is the one that the request names; of a denied request it may not exist.
type Pod struct {
	Namespace      string    `json:"namespace,omitempty"`
	Name           string    `json:"pod,omitempty"`
	UID            types.UID `json:"podUID,omitempty"`
	Node           string    `json:"node,omitempty"`
	ServiceAccount string    `json:"serviceAccount,omitempty"`
}

// An Issuer is who signs.
type Issuer struct {
	Group string `json:"group"`
	Kind  string `json:"kind"`
	Name  string `json:"name"`
}

// IssuerOf returns an issuer for a record; nil for none.
func IssuerOf(i signer.Issuer) *Issuer {
	if i == (signer.Issuer{}) {
		return nil
	}
	return &Issuer{i.Group, i.Kind, i.Name}
}

// Content is what a certificate says, or what was asked for.
type Content struct {
	CommonName string         `json:"commonName,omitempty"`
	DNSNames   []string       `json:"dnsNames,omitempty"`
	URIs       []string       `json:"uris,omitempty"`
	IPs        []net.IP       `json:"ips,omitempty"`
	Emails     []string       `json:"emails,omitempty"`
	Usages     []signer.Usage `json:"usages,omitempty"`
	IsCA       bool           `json:"isCA,omitempty"`
	KeySHA256  string         `json:"keySHA256,omitempty"` // Of the SubjectPublicKeyInfo in DER.
}

// Validity is what names a certificate at its issuer, and its times.
type Validity struct {
	Serial    string    `json:"serial,omitempty"` // In hexadecimal digits, as `openssl x509 -serial` writes it.
	NotBefore time.Time `json:"notBefore,omitzero"`
	NotAfter  time.Time `json:"notAfter,omitzero"`
}

// An Interval is the time of a gap.
type Interval struct {
	From time.Time `json:"from,omitzero"`
	To   time.Time `json:"to,omitzero"`
}

// maxDenied is the longest signing request, in bytes, that is parsed for the record of a denial: anybody may make one.
const maxDenied = 16 << 10

// OfDenied returns what [OfRequest] does, but that a long signing request asks for nothing.
func OfDenied(der []byte, usages []signer.Usage, isCA bool) Content {
	if len(der) > maxDenied {
		der = nil
	}
	return OfRequest(der, usages, isCA)
}

// OfRequest returns what a signing request, PKCS#10 in DER, asks for. One that can't be read asks for nothing.
func OfRequest(der []byte, usages []signer.Usage, isCA bool) Content {
	c := Content{Usages: usages, IsCA: isCA}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return c
	}
	c.CommonName, c.DNSNames, c.URIs = csr.Subject.CommonName, csr.DNSNames, texts(csr.URIs)
	c.IPs, c.Emails, c.KeySHA256 = csr.IPAddresses, csr.EmailAddresses, keyHash(csr.RawSubjectPublicKeyInfo)
	return c
}

// OfCertificate returns what a certificate says.
func OfCertificate(c *x509.Certificate) (Content, Validity) {
	serial := "00"
	if c.SerialNumber.Sign() != 0 {
		serial = fmt.Sprintf("%X", c.SerialNumber.Bytes())
	}
	return Content{
		CommonName: c.Subject.CommonName, DNSNames: c.DNSNames, URIs: texts(c.URIs), IPs: c.IPAddresses,
		Emails: c.EmailAddresses, Usages: signer.UsagesOf(c), IsCA: c.IsCA,
		KeySHA256: keyHash(c.RawSubjectPublicKeyInfo),
	}, Validity{Serial: serial, NotBefore: c.NotBefore, NotAfter: c.NotAfter}
}

func keyHash(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

func texts(uris []*url.URL) (all []string) {
	for _, u := range uris {
		all = append(all, u.String())
	}
	return all
}
