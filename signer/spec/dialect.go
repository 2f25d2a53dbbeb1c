package spec

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/mayfly-csi/mayfly/signer/message"
)

// A Dialect is how pods write the volumes of a driver: which attributes they know, and what a volume gets that does not
// say. It follows the driver's name.
type Dialect string

// The dialects.
const (
	Mayfly          Dialect = "mayfly"
	CSIDriver       Dialect = "csi-driver"        // Of cert-manager's csi-driver.
	CSIDriverSPIFFE Dialect = "csi-driver-spiffe" // Of cert-manager's csi-driver-spiffe.
)

// The prefixes of the attributes: each dialect has its own, and that of csi-driver has ours beside it.
const (
	Prefix       = "csi.mayfly.dev/"
	OldPrefix    = "csi.cert-manager.io/"
	spiffePrefix = "spiffe.csi.cert-manager.io/"
)

// The names of the drivers whose volumes speak a dialect where the operator does not say otherwise.
const (
	Driver       = "csi.mayfly.dev"
	OldDriver    = "csi.cert-manager.io"
	SPIFFEDriver = "spiffe.csi.cert-manager.io"
)

// A DriverName is a name under which the driver serves, with the dialect of its volumes.
type DriverName struct {
	Name    string
	Dialect Dialect // Empty: what the name says.
}

// ParseDriverName parses <name> or <name>=<dialect>. It does not check the name.
func ParseDriverName(text string) (DriverName, error) {
	name, dialect, given := strings.Cut(text, "=")
	if !given {
		return DriverName{name, DialectOf(name)}, nil
	}
	var known []string
	for _, d := range dialects() {
		known = append(known, string(d.name))
	}
	if !slices.Contains(known, dialect) {
		return DriverName{}, fmt.Errorf("%s is not a dialect: there are %s",
			message.Quote(dialect), strings.Join(known, ", "))
	}
	return DriverName{name, Dialect(dialect)}, nil
}

// String returns the name as ParseDriverName reads it.
func (n DriverName) String() string {
	if n.Dialect == "" || n.Dialect == DialectOf(n.Name) {
		return n.Name
	}
	return n.Name + "=" + string(n.Dialect)
}

// DialectOf returns the dialect that a driver's name says: our own, unless it is the name of another driver.
func DialectOf(driver string) Dialect {
	for _, d := range dialects() {
		if d.driver == driver {
			return d.name
		}
	}
	return Mayfly
}

// Lenient reports whether an issuer may leave out something that the pod asked for.
func (d Dialect) Lenient() bool { return d.row().lenient }

// row returns the dialect's row; the zero Dialect is ours.
func (d Dialect) row() *dialect {
	all := dialects()
	return &all[max(0, slices.IndexFunc(all, func(row dialect) bool { return row.name == d }))]
}

// A dialect is one row of the table of dialects.
type dialect struct {
	name   Dialect
	driver string // Whose volumes speak it.

	key      func(Attribute) string // How a pod writes an attribute; empty: it can't.
	standard func(Attribute) string // The value of an attribute that nobody gives.

	rsa         Key    // Size and encoding of an RSA key that the volume does not say.
	issuerKind  string // Of an issuer without one.
	lenient     bool   // Values are checked as csi-driver checks them.
	ownIssuer   bool   // The issuer of the driver and the ConfigMap does not count.
	byNamespace bool   // The profile of the pod's namespace counts.
	annotations bool   // Attributes of other groups become annotations of the request.
	identity    string // The annotation of the request that has the SPIFFE ID; empty: none has.
}

// dialects returns the table of dialects, ours first.
var dialects = sync.OnceValue(func() []dialect {
	return []dialect{
		{
			name: Mayfly, driver: Driver, key: ourKey, standard: func(a Attribute) string { return a.Default },
			rsa: Key{Size: 3072, Encoding: PKCS8}, issuerKind: "Issuer", byNamespace: true, annotations: true,
		}, {
			name: CSIDriver, driver: OldDriver, key: oldKey, standard: func(a Attribute) string { return a.OldDefault },
			rsa: Key{Size: 2048, Encoding: PKCS1}, issuerKind: "Issuer", annotations: true,
			lenient: true, ownIssuer: true,
		}, {
			name: CSIDriverSPIFFE, driver: SPIFFEDriver, key: spiffeKey,
			standard: func(a Attribute) string { return cmp.Or(a.SPIFFEDefault, a.Default) },
			rsa:      Key{Size: 3072, Encoding: PKCS8}, issuerKind: "ClusterIssuer",
			identity: spiffePrefix + "identity",
		},
	}
})

func ourKey(a Attribute) string {
	if a.OnlyOld {
		return ""
	}
	return Prefix + a.Name
}

func oldKey(a Attribute) string {
	if a.Old {
		return OldPrefix + a.Name
	}
	return Prefix + a.Name
}

func spiffeKey(a Attribute) string {
	if a.SPIFFE {
		return spiffePrefix + a.Name
	}
	return ""
}

// Knows reports whether a key is that of an attribute of the certificate.
func (d Dialect) Knows(key string) bool {
	_, ok := table().columns[d.row().name].index[key]
	return ok
}

// IdentityAnnotation returns the annotation of the request that has the SPIFFE ID; empty: none has.
func (d Dialect) IdentityAnnotation() string { return d.row().identity }

// Annotates reports whether an attribute of a key becomes an annotation of the request: one of another group than the
// drivers'.
func (d Dialect) Annotates(key string) bool { return d.row().annotations && isForeign(key) }

// isForeign reports whether a key is of another group than the attributes.
func isForeign(key string) bool {
	return strings.Contains(key, "/") && !hasPrefix(key, Prefix, OldPrefix)
}

func hasPrefix(key string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
}
