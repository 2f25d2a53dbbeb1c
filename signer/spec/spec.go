// Package spec is what certificate a pod asks for: the attributes of a volume that say so, parsed once into a valid
// [Spec]. Node plugin and controller derive from a pod the very same.
//
// It does no I/O. What a volume asks for beside its certificate is package volume's.
package spec

import (
	"cmp"
	"crypto/x509/pkix"
	"net"
	"net/url"
	"time"

	"github.com/mayfly-csi/mayfly/signer"
)

// Asked is what a driver is asked for, as far as it says what certificate.
type Asked struct {
	Driver     string            `json:"driver,omitempty"`  // The name under which the driver was called.
	Dialect    Dialect           `json:"dialect,omitempty"` // Of that name; empty: what the name alone says.
	Attributes map[string]string `json:"attributes"`        // The volume context, the kubelet's keys included.
	Node       string            `json:"-"`                 // The pod's, where it is not that of the defaults.

	Profile Profile  `json:"profile,omitempty"` // What counted for the certificate that was asked for last.
	IPs     []string `json:"ips,omitempty"`     // The pod's, then.
}

// dialect returns the dialect of the volume.
func (a Asked) dialect() Dialect { return cmp.Or(a.Dialect, DialectOf(a.Driver)) }

// Pod returns the pod for which a volume was asked.
func (a Asked) Pod() signer.Pod {
	all := a.Attributes
	return signer.Pod{
		Namespace: all[podNamespace], Name: all[podName], UID: all[podUID], ServiceAccount: all[serviceAccountName],
	}
}

// A Spec is one certificate for one pod. Values that come from [Parse] are valid.
type Spec struct {
	Pod    signer.Pod    `json:",omitzero"`
	Issuer signer.Issuer `json:",omitzero"`
	Names
	IsCA bool `json:",omitzero"`

	Annotations map[string]string `json:",omitzero"` // Of the request, for the signer.

	Duration    time.Duration  `json:",omitzero"`
	Usages      []signer.Usage `json:",omitzero"`
	NamesUsages bool           `json:",omitzero"` // The pod itself says what they are.
	SignsUsages bool           `json:",omitzero"` // The signing request has them, and the CA flag.
	Key         Key            `json:",omitzero"`

	Dialect Dialect `json:",omitzero"`
	Profile Profile `json:",omitzero"` // Values of attributes that the pod does not give.
	NeedsIP bool    `json:",omitzero"` // Its names have the pod's IP.
	LacksIP bool    `json:",omitzero"` // That is not known: another stands for it, and no request may be made.
	AsPod   bool    `json:",omitzero"` // The certificate is asked for as the pod's service account.
}

// Names are those that a certificate has.
type Names struct {
	Subject    pkix.Name  `json:",omitzero"`
	RawSubject []byte     `json:",omitzero"` // The subject as an ASN.1 sequence, instead of Subject; nil: Subject counts.
	DNSNames   []string   `json:",omitzero"`
	IPs        []net.IP   `json:",omitzero"`
	URIs       []*url.URL `json:",omitzero"`
}

// A Key is the kind of private key that a pod asked for.
type Key struct {
	Algorithm Algorithm
	Size      int // Bits: an RSA modulus or an ECDSA curve; 0 for Ed25519.
	Encoding  Encoding
}

// Algorithm is a key algorithm, by cert-manager's name.
type Algorithm string

// The key algorithms.
const (
	RSA     Algorithm = "RSA"
	ECDSA   Algorithm = "ECDSA"
	Ed25519 Algorithm = "Ed25519"
)

// Encoding is how a private key is written.
type Encoding string

// The encodings. PKCS1 is for RSA alone (RFC 8017).
const (
	PKCS1 Encoding = "PKCS1"
	PKCS8 Encoding = "PKCS8"
)
