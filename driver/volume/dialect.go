package volume

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/problem"
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
		return DriverName{}, fmt.Errorf("%s is not a dialect: there are %s", message.Quote(dialect), strings.Join(known, ", "))
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

// KeepRequests returns how many finished requests of a volume are kept where the operator does not say.
func (d Dialect) KeepRequests() int { return d.row().keepRequests }

// Lenient reports whether an issuer may leave out something that the pod asked for.
func (d Dialect) Lenient() bool { return d.row().lenient }

// TrustAsIs reports whether the text of a file of CA certificates is passed on as it is, where a volume has no other
// source.
func (d Dialect) TrustAsIs() bool { return d.row().trustAsIs }

// row returns the dialect's row; the zero Dialect is ours.
func (d Dialect) row() *dialect {
	all := dialects()
	return &all[max(0, slices.IndexFunc(all, func(row dialect) bool { return row.name == d }))]
}

// A dialect is one row of the table of dialects.
type dialect struct {
	name   Dialect
	driver string // Whose volumes speak it.

	keys      []string // How a pod writes each attribute of the table, by its index; empty: it can't.
	standards []string // The value of each that nobody gives.

	rsa          Key    // Size and encoding of an RSA key that the volume does not say.
	issuerKind   string // Of an issuer without one.
	lenient      bool   // Values are checked as csi-driver checks them.
	ownIssuer    bool   // The issuer of the driver and the ConfigMap does not count.
	byNamespace  bool   // The profile of the pod's namespace counts.
	annotations  bool   // Attributes of other groups become annotations of the request.
	overlooks    bool   // Attributes that nobody knows are no error.
	identity     string // The annotation of the request that has the SPIFFE ID; empty: none has.
	keepRequests int
	trustAsIs    bool
}

// dialects returns the table of dialects, ours first.
var dialects = sync.OnceValue(func() []dialect {
	return []dialect{
		{
			name: Mayfly, driver: Driver, keys: perAttribute(ourKey), standards: perAttribute(ourStandard),
			rsa: Key{Size: 3072, Encoding: PKCS8}, issuerKind: "Issuer", byNamespace: true, annotations: true,
		}, {
			name: CSIDriver, driver: OldDriver, keys: perAttribute(oldKey), standards: perAttribute(oldStandard),
			rsa: Key{Size: 2048, Encoding: PKCS1}, issuerKind: "Issuer", annotations: true,
			lenient: true, ownIssuer: true, overlooks: true, keepRequests: 1,
		}, {
			name: CSIDriverSPIFFE, driver: SPIFFEDriver,
			keys: perAttribute(spiffeKey), standards: perAttribute(spiffeStandard),
			rsa: Key{Size: 3072, Encoding: PKCS8}, issuerKind: "ClusterIssuer",
			identity: spiffePrefix + "identity", overlooks: true, keepRequests: 1, trustAsIs: true,
		},
	}
})

// perAttribute returns a text for each attribute of the table.
func perAttribute(text func(Attribute) string) (texts []string) {
	for _, a := range table() {
		texts = append(texts, text(a))
	}
	return texts
}

func ourKey(a Attribute) string {
	if a.OnlyOld {
		return ""
	}
	return Prefix + a.Name
}

func ourStandard(a Attribute) string { return a.Default }

func oldKey(a Attribute) string {
	if a.Old {
		return OldPrefix + a.Name
	}
	return Prefix + a.Name
}

func oldStandard(a Attribute) string { return a.OldDefault }

// spiffeKey returns the key of the one attribute that csi-driver-spiffe knows (its internal/csi/driver).
func spiffeKey(a Attribute) string {
	if a.Name != "fs-group" {
		return ""
	}
	return spiffePrefix + a.Name
}

// spiffeStandard returns what csi-driver-spiffe gives to all volumes (its internal/csi/driver).
func spiffeStandard(a Attribute) string {
	switch a.Name {
	case "spiffe":
		return "true"
	case "key-usages":
		return "digital signature,key encipherment,server auth,client auth"
	case "usages-in-request":
		return "false"
	case "mode":
		return a.OldDefault
	}
	return a.Default
}

// knows reports whether a key is an attribute's in the dialect.
func (d *dialect) knows(key string) bool { return key != "" && slices.Contains(d.keys, key) }

// known returns all keys of the dialect.
func (d *dialect) known() []string {
	return slices.DeleteFunc(slices.Clone(d.keys), func(key string) bool { return key == "" })
}

// keyOf returns how a pod writes an attribute, by its name; empty: it can't.
func (d *dialect) keyOf(name string) string {
	i := slices.IndexFunc(table(), func(a Attribute) bool { return a.Name == name })
	if i < 0 {
		return ""
	}
	return d.keys[i]
}

// translate returns the attribute that a key of another dialect means, and its key in this one; nil if the key is of no
// other dialect, and an empty key if the dialect has nothing like it.
func (d *dialect) translate(key string) (a *Attribute, use string) {
	if d.knows(key) || !hasPrefix(key, Prefix, OldPrefix, spiffePrefix) {
		return nil, ""
	}
	for _, other := range dialects() {
		if other.knows(key) {
			i := slices.Index(other.keys, key)
			a = &table()[i]
			return a, cmp.Or(d.keys[i], d.keyOf(a.Instead))
		}
	}
	return nil, ""
}

func hasPrefix(key string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
}

// unknown returns the error of a key that the dialect does not know.
func (d *dialect) unknown(key string) error {
	if _, use := d.translate(key); use != "" {
		return problem.New(key, "is not an attribute of this driver: use %s", use)
	}
	if !d.annotations {
		return problem.New(message.Quote(key), "is not a known attribute: %s knows %s", d.driver, strings.Join(d.known(), ", "))
	}
	return problem.New(message.Quote(key), "is not a known attribute%s", problem.Suggestion(key, "%s", d.known()))
}
