// Package volume is what a pod asked for: the attributes of an inline CSI volume, parsed once into a valid [Volume].
//
// It does no I/O. Its table of attributes is the source of docs/reference.md.
package volume

import (
	"net"
	"net/url"
	"time"

	"github.com/mayfly-csi/mayfly/signer"
)

// The prefixes of the attributes. A pod that uses the old prefix gets the old driver's defaults.
const (
	Prefix    = "csi.mayfly.dev/"
	OldPrefix = "csi.cert-manager.io/" // Of cert-manager's csi-driver.
)

// Asked is what a NodePublishVolume call asks for, without its secrets. It is what the record of a volume keeps,
// so that a renewal after a restart starts from the same words.
type Asked struct {
	ID         string            `json:"id"`
	Target     string            `json:"target"`
	Attributes map[string]string `json:"attributes"`           // The volume context, the kubelet's keys included.
	Group      string            `json:"group,omitempty"`      // volume_mount_group: the pod's fsGroup.
	MountFlags []string          `json:"mountFlags,omitempty"` // Of the volume capability.
}

// A Volume is one certificate volume of one pod. Values that come from [Parse] are valid.
type Volume struct {
	ID, Target string
	Pod        signer.Pod
	Issuer     signer.Issuer

	CommonName string
	DNSNames   []string
	IPs        []net.IP
	URIs       []*url.URL

	Duration    time.Duration
	RenewBefore time.Duration // Before the end of the certificate; 0: a third of its lifetime.
	Usages      []signer.Usage
	Key         Key

	Layouts []Layout
	Files   FileNames
	Group   *int // Who may read the files; nil: every user of the pod.

	SELinuxContext string // For the volume's tmpfs; empty: the kernel's default.
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

// A Layout is a set of files that a volume offers.
type Layout string

// The layouts.
const (
	PEM    Layout = "pem"    // Certificate, key and CA, each in a file of its own.
	Bundle Layout = "bundle" // BundleFile: PKCS#8 key, then the chain, leaf first.
)

// BundleFile is the file of the layout bundle (spiffe/spiffe#376).
const BundleFile = "credential-bundle.pem"

// FileNames are the files of the layout pem.
type FileNames struct {
	CA, Certificate, Key string
}
