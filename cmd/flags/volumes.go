package flags

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"slices"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// Volumes are the flags that say what attributes mean. The controller needs the same values as the node plugin.
type Volumes struct {
	DriverNames *Repeated[spec.DriverName]
	Issuer      signer.Issuer
	TrustDomain string
	SPIFFEPath  string
	ConfigMap   string // <namespace>/<name>; empty: none.
}

// Add defines the flags in f, with their defaults.
func (v *Volumes) Add(f *flag.FlagSet) {
	v.DriverNames = Repeat(driverName, spec.DriverName{Name: spec.Driver, Dialect: spec.Mayfly})
	f.Var(v.DriverNames, "driver-name",
		"name of the CSI driver, as in its CSIDriver object, or <name>=<dialect>: how its volumes are written, "+
			"mayfly, csi-driver or csi-driver-spiffe (default: as the name says); may be repeated, or be several "+
			"with commas between them")
	f.StringVar(&v.Issuer.Name, "issuer-name", "", "issuer of volumes that name none; empty: each must")
	f.StringVar(&v.Issuer.Kind, "issuer-kind", "",
		"kind of that issuer; empty: Issuer, and ClusterIssuer for volumes of the dialect csi-driver-spiffe")
	f.StringVar(&v.Issuer.Group, "issuer-group", "cert-manager.io", "API group of that issuer")
	f.StringVar(&v.TrustDomain, "trust-domain", "cluster.local",
		"SPIFFE trust domain of the pods' SPIFFE IDs; empty: none")
	f.StringVar(&v.SPIFFEPath, "spiffe-path", spec.StandardSPIFFEPath,
		"path of the pods' SPIFFE IDs, with the variables of the attributes but the pod's IPs; one element has "+
			"${POD_NAMESPACE} or ${POD_UID} and no other variable")
	f.StringVar(&v.ConfigMap, "config-map", "",
		"ConfigMap, as <namespace>/<name>, with profiles of attributes and the issuer of volumes that name none; "+
			"it is watched; empty: none")
}

// Check checks the values of the flags.
func (v *Volumes) Check() error {
	names := map[string]bool{}
	for _, n := range v.DriverNames.Values {
		if names[n.Name] {
			return fmt.Errorf("--driver-name=%s: %s is given twice", v.DriverNames, n.Name)
		}
		names[n.Name] = true
	}
	if v.ConfigMap != "" && !objectName.MatchString(v.ConfigMap) {
		return fmt.Errorf("--config-map=%s: <namespace>/<name> is needed", v.ConfigMap)
	}
	return nil
}

// Defaults returns the values for volumes that give none.
func (v *Volumes) Defaults() spec.Defaults {
	return spec.Defaults{
		IssuerName: v.Issuer.Name, IssuerKind: v.Issuer.Kind, IssuerGroup: v.Issuer.Group,
		TrustDomain: v.TrustDomain, SPIFFEPath: v.SPIFFEPath,
	}
}

// driverNames matches what the CSI specification allows (csi.proto, GetPluginInfoResponse.name).
var driverNames = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$`)

// objectName matches the namespace and name of an object (k8s.io/apimachinery pkg/util/validation, DNS-1123 label
// and subdomain).
var objectName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

// driverName parses a driver's name, with its dialect.
func driverName(value string) (spec.DriverName, error) {
	name, err := spec.ParseDriverName(value)
	if err == nil && !driverNames.MatchString(name.Name) {
		err = fmt.Errorf("%q: a driver's name has up to 63 letters, digits, dots and dashes", name.Name)
	}
	return name, err
}

// Log are the flags of the log.
type Log struct {
	LogLevel  slog.Level
	LogFormat string
}

// Add defines the flags in f, with their defaults.
func (l *Log) Add(f *flag.FlagSet) {
	f.TextVar(&l.LogLevel, "log-level", slog.LevelInfo, "debug, info, warn or error")
	f.StringVar(&l.LogFormat, "log-format", "json", "json or text")
}

// Check checks the values of the flags.
func (l *Log) Check() error {
	if !slices.Contains([]string{"json", "text"}, l.LogFormat) {
		return fmt.Errorf("--log-format=%s: there are json and text", l.LogFormat)
	}
	return nil
}

// Logger makes the log.
func (l *Log) Logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: l.LogLevel}
	if l.LogFormat == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}
