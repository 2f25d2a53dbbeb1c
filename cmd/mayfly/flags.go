package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// The values of --signer.
const (
	signerCertManager = "cert-manager"
	signerLocal       = "local"
)

// options are the flags of mayfly node.
type options struct {
	NodeName       string
	DriverName     string
	CSIEndpoint    string
	KubeletRoot    string
	StateDir       string
	Signer         string
	LocalCA        string
	Kubeconfig     string
	KeepRequests   int
	MetricsAddress string
	LogLevel       slog.Level
	LogFormat      string
}

// flags are the flags of mayfly node, set to their defaults. Their names and texts are the source of docs/reference.md.
func (o *options) flags() *flag.FlagSet {
	f := flag.NewFlagSet("mayfly node", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.NodeName, "node-name", "", "name of this node; required")
	f.StringVar(&o.DriverName, "driver-name", "csi.mayfly.dev", "name of the CSI driver, as in its CSIDriver object")
	f.StringVar(&o.CSIEndpoint, "csi-endpoint", "", "path of the CSI socket (default plugins/<driver name>/csi.sock under the kubelet's root)")
	f.StringVar(&o.KubeletRoot, "kubelet-root", "/var/lib/kubelet", "the kubelet's root directory; empty: do not register with a kubelet, and accept targets anywhere")
	f.StringVar(&o.StateDir, "state-dir", "", "directory under which each volume's tmpfs is mounted (default plugins/<driver name>/volumes under the kubelet's root)")
	f.StringVar(&o.Signer, "signer", signerCertManager, "who signs: cert-manager, or local (an embedded CA)")
	f.StringVar(&o.LocalCA, "local-ca", "", "directory of the embedded CA's tls.crt and tls.key, made on first use (default plugins/<driver name>/local-ca under the kubelet's root)")
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig file for the API server; empty: the pod's service account")
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
	for _, p := range []struct {
		path       *string
		name, rest string
	}{
		{&o.CSIEndpoint, "csi-endpoint", "csi.sock"},
		{&o.StateDir, "state-dir", "volumes"},
		{&o.LocalCA, "local-ca", "local-ca"},
	} {
		if *p.path == "" && o.KubeletRoot != "" {
			*p.path = filepath.Join(o.KubeletRoot, "plugins", o.DriverName, p.rest)
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

// check is for what flags must say.
func (o *options) check() error {
	switch {
	case o.NodeName == "":
		return errors.New("--node-name is required")
	case !driverName.MatchString(o.DriverName):
		return fmt.Errorf("--driver-name=%q: a driver's name has up to 63 letters, digits, dots and dashes", o.DriverName)
	case o.KubeletRoot != "" && (!filepath.IsAbs(o.KubeletRoot) || filepath.Clean(o.KubeletRoot) != o.KubeletRoot):
		return fmt.Errorf("--kubelet-root=%s: a clean absolute path is needed", o.KubeletRoot)
	case !slices.Contains([]string{signerCertManager, signerLocal}, o.Signer):
		return fmt.Errorf("--signer=%s: there are %s and %s", o.Signer, signerCertManager, signerLocal)
	case o.KeepRequests < 0:
		return fmt.Errorf("--keep-requests=%d: a number from 0", o.KeepRequests)
	case !slices.Contains([]string{"json", "text"}, o.LogFormat):
		return fmt.Errorf("--log-format=%s: there are json and text", o.LogFormat)
	}
	return nil
}
