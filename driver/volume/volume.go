// Package volume is what a pod asked for: the attributes of an inline CSI volume, parsed once into a valid [Volume].
// What certificate it asks for is package spec's.
//
// It does no I/O. The tables of attributes are the source of docs/reference.md.
package volume

import (
	"io/fs"
	"time"

	"github.com/mayfly-csi/mayfly/signer/spec"
)

// Asked is what a NodePublishVolume call asks for. Without the password it is what the record of a volume keeps,
// so that a renewal after a restart starts from the same words.
type Asked struct {
	spec.Asked

	ID         string   `json:"id"`
	Target     string   `json:"target"`
	Group      string   `json:"group,omitempty"`      // volume_mount_group: the pod's fsGroup.
	MountFlags []string `json:"mountFlags,omitempty"` // Of the volume capability.
	Secrets    bool     `json:"-"`                    // The call came with a Secret: nodePublishSecretRef.
	Password   string   `json:"-"`                    // Of the keystores, from that Secret.
}

// A Volume is one certificate volume of one pod. Values that come from [Parse] are valid.
type Volume struct {
	ID, Target string
	spec.Spec

	RenewBefore time.Duration `json:",omitzero"` // Before the end of the certificate; 0: a third of its lifetime.
	RenewPart   int           `json:",omitzero"` // The same, in percent of its lifetime; 0: RenewBefore counts.
	ReuseKey    bool          `json:",omitzero"` // A renewal keeps the key.
	Once        bool          `json:",omitzero"` // There is no renewal.
	Window      *Window       `json:",omitzero"` // For renewals; nil: at any time.

	Overlooked    []string `json:",omitzero"` // What is wrong with attributes that count for nothing in the dialect.
	Gates         []Gate   `json:",omitzero"`
	StartsWithout bool     `json:",omitzero"` // The pod may start before its certificate can be asked for.

	Files    map[string]Part `json:",omitzero"` // By name.
	Keystore Keystore        `json:",omitzero"`
	Owner    Owner           `json:",omitzero"`
	Trust    []Source        `json:",omitzero"` // Of the CA certificates, in order; at least one, none twice.

	SELinuxContext string `json:",omitzero"` // For the volume's tmpfs; empty: the kernel's default.
}

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
