package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/pod"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// The values of --signer.
const (
	signerCertManager = "cert-manager"
	signerLocal       = "local"
)

// options are the flags of mayfly node.
type options struct {
	NodeName       string
	DriverNames    *repeated[string]
	CSIEndpoint    string
	KubeletRoot    string
	StateDir       string
	Signer         string
	LocalCA        string
	Kubeconfig     string
	Issuer         signer.Issuer
	TrustDomain    string
	SPIFFEPath     string
	Gates          *repeated[volume.Gate]
	StartsWithout  bool
	ConfigMap      string
	WatchPods      bool
	AsPod          bool
	Trust          string
	TrustFiles     *repeated[trustFile]
	KeepRequests   int
	MetricsAddress string
	LogLevel       slog.Level
	LogFormat      string
}

const defaultDriverName = "csi.mayfly.dev"

// name reads a driver's name.
func name(value string) (string, error) {
	if !driverName.MatchString(value) {
		return "", fmt.Errorf("%q: a driver's name has up to 63 letters, digits, dots and dashes", value)
	}
	return value, nil
}

// flags are the flags of mayfly node, set to their defaults. Their names and texts are the source of docs/reference.md.
func (o *options) flags() *flag.FlagSet {
	f := flag.NewFlagSet("mayfly node", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.NodeName, "node-name", "", "name of this node; required")
	o.DriverNames = repeat(name, defaultDriverName)
	f.Var(o.DriverNames, "driver-name", "name of the CSI driver, as in its CSIDriver object; may be repeated, or be several with commas between them")
	f.StringVar(&o.CSIEndpoint, "csi-endpoint", "", "path of the CSI socket, with one driver name (default plugins/<driver name>/csi.sock under the kubelet's root)")
	f.StringVar(&o.KubeletRoot, "kubelet-root", "/var/lib/kubelet", "the kubelet's root directory; empty: do not register with a kubelet, and accept targets anywhere")
	f.StringVar(&o.StateDir, "state-dir", "", "directory under which each volume's tmpfs is mounted (default plugins/<first driver name>/volumes under the kubelet's root)")
	f.StringVar(&o.Signer, "signer", signerCertManager, "who signs: cert-manager, or local (an embedded CA)")
	f.StringVar(&o.LocalCA, "local-ca", "", "directory of the embedded CA's tls.crt and tls.key, made on first use (default plugins/<first driver name>/local-ca under the kubelet's root)")
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig file for the API server; empty: the pod's service account, or none with --signer=local")
	f.StringVar(&o.Issuer.Name, "issuer-name", "", "issuer of volumes that name none; empty: each must")
	f.StringVar(&o.Issuer.Kind, "issuer-kind", "Issuer", "kind of that issuer")
	f.StringVar(&o.Issuer.Group, "issuer-group", "cert-manager.io", "API group of that issuer")
	f.StringVar(&o.TrustDomain, "trust-domain", "cluster.local", "SPIFFE trust domain of the pods' SPIFFE IDs; empty: none")
	f.StringVar(&o.SPIFFEPath, "spiffe-path", volume.StandardSPIFFEPath, "path of the pods' SPIFFE IDs, with the variables of the attributes")
	f.StringVar(&o.ConfigMap, "config-map", "", "ConfigMap, as <namespace>/<name>, with profiles of attributes and the issuer of volumes that name none; it is watched; empty: none")
	f.BoolVar(&o.StartsWithout, "continue-on-not-ready", false, "let pods start without their certificate while that can't be asked for yet, for a gate or for their IP")
	o.Gates = repeat(volume.ParseGate)
	f.Var(o.Gates, "pod-readiness-gate", "what a pod must have before its first certificate is asked for: pod-ip:any, pod-ip:ipv4, pod-ip:ipv6, pod-condition:<type>[=<status>] or pod-annotation:<key>; may be repeated, or be several with commas between them")
	f.BoolVar(&o.WatchPods, "watch-pods", false, "watch this node's pods for the annotation "+pod.RenewAt)
	f.BoolVar(&o.AsPod, "use-token-request", false, "ask for certificates as the pod's service account, with the token that the kubelet passes on (CSIDriver: tokenRequests, requiresRepublish)")
	f.StringVar(&o.Trust, "trust", string(volume.IssuerSource), "where the CA certificates of volumes come from that do not say, in the words of the attribute; not of volumes with the old prefix or of the old driver's name")
	o.TrustFiles = repeat(readTrustFile)
	f.Var(o.TrustFiles, "trust-file", "<name>=<path>: a file of CA certificates on the node, which volumes name as file:<name>; may be repeated, or be several with commas between them")
	f.IntVar(&o.KeepRequests, "keep-requests", 0, "how many finished CertificateRequests to keep for each volume")
	f.StringVar(&o.MetricsAddress, "metrics-address", "", "address to serve Prometheus metrics on, such as :9402; empty: none")
	f.TextVar(&o.LogLevel, "log-level", slog.LevelInfo, "debug, info, warn or error")
	f.StringVar(&o.LogFormat, "log-format", "json", "json or text")
	return f
}

// variable is the environment variable that stands in for a flag.
func variable(name string) string {
	return "MAYFLY_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// parse reads the flags, each from the environment first and then from the command line.
func parse(args []string, getenv func(string) string, stdout io.Writer) (options, error) {
	var o options
	f := o.flags()
	var err error
	f.VisitAll(func(fl *flag.Flag) {
		if value := getenv(variable(fl.Name)); value != "" && err == nil {
			if e := f.Set(fl.Name, value); e != nil {
				err = usageError{fmt.Errorf("%s=%q: %w", variable(fl.Name), value, e)}
			}
		}
	})
	if err != nil {
		return options{}, err
	}
	o.DriverNames.over, o.Gates.over, o.TrustFiles.over = true, true, true
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		f.SetOutput(stdout)
		fmt.Fprintln(stdout, "Flags of mayfly node; MAYFLY_NODE_NAME stands in for --node-name, and so on:")
		f.PrintDefaults()
		return options{}, err
	} else if err != nil {
		return options{}, usageError{err}
	}
	if f.NArg() > 0 {
		return options{}, usageError{fmt.Errorf("unexpected argument %q", f.Arg(0))}
	}
	if err := o.check(); err != nil {
		return options{}, usageError{err}
	}
	if err := o.complete(); err != nil {
		return options{}, usageError{err}
	}
	return o, nil
}

// complete sets the paths that follow from others.
func (o *options) complete() error {
	o.CSIEndpoint = strings.TrimPrefix(o.CSIEndpoint, "unix://")
	first := o.DriverNames.values[0]
	for _, p := range []struct {
		path       *string
		name, rest string
	}{
		{&o.CSIEndpoint, "csi-endpoint", "csi.sock"},
		{&o.StateDir, "state-dir", "volumes"},
		{&o.LocalCA, "local-ca", "local-ca"},
	} {
		if *p.path == "" && o.KubeletRoot != "" {
			*p.path = filepath.Join(o.KubeletRoot, "plugins", first, p.rest)
		}
		if *p.path == "" && (p.name != "local-ca" || o.Signer == signerLocal) {
			return fmt.Errorf("--%s is required where --kubelet-root is empty", p.name)
		}
		if *p.path != "" && !filepath.IsAbs(*p.path) {
			return fmt.Errorf("--%s=%s: an absolute path is needed", p.name, *p.path)
		}
	}
	return nil
}

// driverName is what the CSI specification allows (csi.proto, GetPluginInfoResponse.name).
var driverName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$`)

// objectName is the namespace and name of an object (k8s.io/apimachinery pkg/util/validation, DNS-1123 label and subdomain).
var objectName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

// cluster reports whether there is an API server.
func (o *options) cluster() bool { return o.Signer == signerCertManager || o.Kubeconfig != "" }

// driverNames are the names with their sockets.
func (o *options) driverNames() (all []driver.Name) {
	for i, name := range o.DriverNames.values {
		endpoint := filepath.Join(o.KubeletRoot, "plugins", name, "csi.sock")
		if i == 0 {
			endpoint = o.CSIEndpoint
		}
		all = append(all, driver.Name{Name: name, Endpoint: endpoint})
	}
	return all
}

// defaults are what volumes get that do not say.
func (o *options) defaults() volume.Defaults {
	return volume.Defaults{
		IssuerName: o.Issuer.Name, IssuerKind: o.Issuer.Kind, IssuerGroup: o.Issuer.Group,
		TrustDomain: o.TrustDomain, SPIFFEPath: o.SPIFFEPath,
		Gates: o.Gates.values, StartsWithout: o.StartsWithout, AsPod: o.AsPod,
		Trust: o.Trust, TrustFiles: slices.Sorted(maps.Keys(o.trustFiles())),
	}
}

// check is for what flags must say.
func (o *options) check() error {
	switch {
	case o.NodeName == "":
		return errors.New("--node-name is required")
	case len(o.DriverNames.values) > 1 && (o.CSIEndpoint != "" || o.KubeletRoot == ""):
		return errors.New("--csi-endpoint, and an empty --kubelet-root, go with one --driver-name")
	case o.KubeletRoot != "" && (!filepath.IsAbs(o.KubeletRoot) || filepath.Clean(o.KubeletRoot) != o.KubeletRoot):
		return fmt.Errorf("--kubelet-root=%s: a clean absolute path is needed", o.KubeletRoot)
	case !slices.Contains([]string{signerCertManager, signerLocal}, o.Signer):
		return fmt.Errorf("--signer=%s: there are %s and %s", o.Signer, signerCertManager, signerLocal)
	case o.KeepRequests < 0:
		return fmt.Errorf("--keep-requests=%d: a number from 0", o.KeepRequests)
	case o.ConfigMap != "" && !objectName.MatchString(o.ConfigMap):
		return fmt.Errorf("--config-map=%s: <namespace>/<name> is needed", o.ConfigMap)
	case len(o.trustFiles()) < len(o.TrustFiles.values):
		return fmt.Errorf("--trust-file=%s: a name is given twice", o.TrustFiles)
	case !o.cluster() && (o.ConfigMap != "" || o.WatchPods || len(o.Gates.values) > 0):
		return errors.New("--config-map, --watch-pods and --pod-readiness-gate need an API server: with --signer=local, --kubeconfig names it")
	case o.AsPod && o.Signer == signerLocal:
		return errors.New("--use-token-request is for --signer=cert-manager: the embedded CA asks nobody")
	case !slices.Contains([]string{"json", "text"}, o.LogFormat):
		return fmt.Errorf("--log-format=%s: there are json and text", o.LogFormat)
	}
	if err := o.defaults().Check(); err != nil {
		return fmt.Errorf("--trust-domain=%s --spiffe-path=%s --trust=%s: %w", o.TrustDomain, o.SPIFFEPath, o.Trust, err)
	}
	return nil
}
