// Package volume is what a pod asked for: the attributes of an inline CSI volume, parsed once into a valid [Volume].
//
// It does no I/O. Its table of attributes is the source of docs/reference.md.
package volume

import (
	"cmp"
	"crypto/x509/pkix"
	"io/fs"
	"net"
	"net/url"
	"time"

	"github.com/mayfly-csi/mayfly/signer"
)

// Asked is what a NodePublishVolume call asks for. Without the password it is what the record of a volume keeps,
// so that a renewal after a restart starts from the same words.
type Asked struct {
	Driver     string            `json:"driver,omitempty"`  // The name under which the driver was called.
	Dialect    Dialect           `json:"dialect,omitempty"` // Of that name; empty: what the name alone says.
	ID         string            `json:"id"`
	Target     string            `json:"target"`
	Attributes map[string]string `json:"attributes"`           // The volume context, the kubelet's keys included.
	Group      string            `json:"group,omitempty"`      // volume_mount_group: the pod's fsGroup.
	MountFlags []string          `json:"mountFlags,omitempty"` // Of the volume capability.
	Secrets    bool              `json:"-"`                    // The call came with a Secret: nodePublishSecretRef.
	Password   string            `json:"-"`                    // Of the keystores, from that Secret.
	Node       string            `json:"-"`                    // The pod's, where it is not that of the defaults.

	Profile Profile  `json:"profile,omitempty"` // What counted for the certificate that was asked for last.
	IPs     []string `json:"ips,omitempty"`     // The pod's, then.
}

// dialect returns the dialect of the volume.
func (a Asked) dialect() Dialect { return cmp.Or(a.Dialect, DialectOf(a.Driver)) }

// A Volume is one certificate volume of one pod. Values that come from [Parse] are valid.
type Volume struct {
	ID, Target string
	Pod        signer.Pod    `json:",omitzero"`
	Issuer     signer.Issuer `json:",omitzero"`

	Subject    pkix.Name  `json:",omitzero"`
	RawSubject []byte     `json:",omitzero"` // The subject as an ASN.1 sequence, instead of Subject; nil: Subject counts.
	DNSNames   []string   `json:",omitzero"`
	IPs        []net.IP   `json:",omitzero"`
	URIs       []*url.URL `json:",omitzero"`
	IsCA       bool       `json:",omitzero"`

	Annotations map[string]string `json:",omitzero"` // Of the request, for the signer.

	Duration    time.Duration  `json:",omitzero"`
	RenewBefore time.Duration  `json:",omitzero"` // Before the end of the certificate; 0: a third of its lifetime.
	RenewPart   int            `json:",omitzero"` // The same, in percent of its lifetime; 0: RenewBefore counts.
	Usages      []signer.Usage `json:",omitzero"`
	NamesUsages bool           `json:",omitzero"` // The pod itself says what they are.
	SignsUsages bool           `json:",omitzero"` // The signing request has them, and the CA flag.
	Key         Key            `json:",omitzero"`
	ReuseKey    bool           `json:",omitzero"` // A renewal keeps the key.
	Once        bool           `json:",omitzero"` // There is no renewal.
	Window      *Window        `json:",omitzero"` // For renewals; nil: at any time.

	Dialect       Dialect  `json:",omitzero"`
	Overlooked    []string `json:",omitzero"` // What is wrong with attributes that count for nothing in the dialect.
	Profile       Profile  `json:",omitzero"` // Values of attributes that the pod does not give.
	Gates         []Gate   `json:",omitzero"`
	NeedsIP       bool     `json:",omitzero"` // Its names have the pod's IP.
	LacksIP       bool     `json:",omitzero"` // That is not known: another stands for it, and no request may be made.
	AsPod         bool     `json:",omitzero"` // The certificate is asked for as the pod's service account.
	StartsWithout bool     `json:",omitzero"` // The pod may start before its certificate can be asked for.

	Files    map[string]Part `json:",omitzero"` // By name.
	Keystore Keystore        `json:",omitzero"`
	Owner    Owner           `json:",omitzero"`
	Trust    []Source        `json:",omitzero"` // Of the CA certificates, in order; at least one, none twice.

	SELinuxContext string `json:",omitzero"` // For the volume's tmpfs; empty: the kernel's default.
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

// A Keystore is how keystores and truststores are locked.
type Keystore struct {
	Password string // Empty: see StandardPassword, or the Secret of an earlier call.
	Alias    string `json:",omitzero"` // Of the key; empty: StandardAlias in a JKS, and none in PKCS#12.

	Algorithms Algorithms // Of PKCS#12 stores.
}

// Algorithms are those of a PKCS#12 store, by cert-manager's names for them (its PKCS12Profile).
type Algorithms string

// The algorithms of PKCS#12 stores.
const (
	Modern2023 Algorithms = "Modern2023" // AES and SHA-2.
	LegacyDES  Algorithms = "LegacyDES"  // 3DES and SHA-1.
	LegacyRC2  Algorithms = "LegacyRC2"  // RC2, 3DES and SHA-1.
)

// StandardPassword locks the keystores of a volume that names no password: Java's own default.
const StandardPassword = "changeit"

// StandardAlias is the alias of the key in a JKS that names none: that of cert-manager's own keystores.
const StandardAlias = "certificate"

// PasswordKey is the key of the keystores' password in the Secret of a volume.
const PasswordKey = "keystore-password"

// An Owner is who may read the files, and how.
type Owner struct {
	User  *int         // nil: root.
	Group *int         // nil: every user of the pod may read.
	Mode  *fs.FileMode // Of a file; nil: as user and group say.
}
