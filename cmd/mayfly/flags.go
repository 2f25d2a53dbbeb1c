package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mayfly-csi/mayfly/cmd/flags"
	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/pod"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// The values of --signer.
const (
	signerCertManager    = "cert-manager"
	signerPodCertificate = "pod-certificate"
	signerLocal          = "local"
)

// options are the flags of mayfly node.
type options struct {
	flags.Volumes
	flags.Log

	NodeName       string
	CSIEndpoint    string
	KubeletRoot    string
	StateDir       string
	Signer         string
	LocalCA        string
	Kubeconfig     string
	Gates          *flags.Repeated[volume.Gate]
	StartsWithout  bool
	AsPod          bool
	WatchPods      bool
	Trust          string
	TrustFiles     *flags.Repeated[trustFile]
	KeepRequests   *int // nil: as many as a volume's dialect says.
	MetricsAddress string
	HealthAddress  string
	SELinuxContext string
}

// flags returns the flags of mayfly node, set to their defaults. Their names and texts are the source of
// docs/reference.md.
func (o *options) flags() *flag.FlagSet {
	f := flag.NewFlagSet("mayfly node", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.NodeName, "node-name", "", "name of this node; required")
	o.Volumes.Add(f)
	o.Log.Add(f)
	f.StringVar(&o.CSIEndpoint, "csi-endpoint", "",
		"path of the CSI socket, with one driver name (default plugins/csi.mayfly.dev/csi.sock under the kubelet's "+
			"root, and with another name <driver name>.sock in that directory)")
	f.StringVar(&o.KubeletRoot, "kubelet-root", "/var/lib/kubelet",
		"the kubelet's root directory; empty: do not register with a kubelet, and accept targets anywhere")
	f.StringVar(&o.StateDir, "state-dir", "",
		"directory under which each volume's tmpfs is mounted (default plugins/csi.mayfly.dev/volumes under the "+
			"kubelet's root)")
	f.StringVar(&o.Signer, "signer", signerCertManager,
		"who signs: cert-manager; pod-certificate (mayfly-controller, asked as the node by PodCertificateRequests); "+
			"or local (an embedded CA)")
	f.StringVar(&o.LocalCA, "local-ca", "",
		"directory of the embedded CA's tls.crt and tls.key, made on first use (default "+
			"plugins/csi.mayfly.dev/local-ca under the kubelet's root)")
	f.StringVar(&o.Kubeconfig, "kubeconfig", "",
		"kubeconfig file for the API server; empty: the pod's service account, or none with --signer=local")
	f.BoolVar(&o.StartsWithout, "continue-on-not-ready", false,
		"let pods start without their certificate while that can't be asked for yet, for a gate or for their IP")
	f.BoolVar(&o.AsPod, "use-token-request", false,
		"ask as the pod's service account, past mayfly-controller, for volumes that do not say no: with the token "+
			"that the kubelet passes on (CSIDriver: tokenRequests, requiresRepublish); without this flag no volume "+
			"asks so but by a profile")
	o.Gates = flags.Repeat(volume.ParseGate)
	f.Var(o.Gates, "pod-readiness-gate",
		"what a pod must have before its first certificate is asked for: pod-ip:any, pod-ip:ipv4, pod-ip:ipv6, "+
			"pod-condition:<type>[=<status>] or pod-annotation:<key>; may be repeated, or be several with commas "+
			"between them")
	f.BoolVar(&o.WatchPods, "watch-pods", false, "watch this node's pods for the annotation "+pod.RenewAt)
	f.StringVar(&o.Trust, "trust", string(volume.IssuerSource),
		"where the CA certificates of volumes come from that do not say, in the words of the attribute; not of "+
			"volumes of the dialect csi-driver")
	o.TrustFiles = flags.Repeat(readTrustFile)
	f.Var(o.TrustFiles, "trust-file",
		"<name>=<path>: a file of CA certificates on the node, which volumes name as file:<name>; may be repeated, "+
			"or be several with commas between them")
	f.Func("keep-requests", "how many finished CertificateRequests to keep for each volume, with "+
		"--signer=cert-manager; empty: 0, and 1 for volumes of the dialects csi-driver and csi-driver-spiffe",
		o.setKeepRequests)
	f.StringVar(&o.HealthAddress, "health-address", "",
		"address to serve /healthz and /readyz on, such as :9809; empty: none")
	f.StringVar(&o.SELinuxContext, "selinux-context", "",
		"SELinux context of volumes, such as system_u:object_r:container_file_t:s0, where the kubelet sends none "+
			"and the node has SELinux; empty: the kernel's for a tmpfs")
	f.StringVar(&o.MetricsAddress, "metrics-address", "",
		"address to serve Prometheus metrics on, such as :9402; empty: none")
	return f
}

// setKeepRequests reads --keep-requests.
func (o *options) setKeepRequests(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return errors.New("a number from 0 is needed")
	}
	o.KeepRequests = &n
	return nil
}

// parse reads the flags, each from the environment first and then from the command line.
func parse(args []string, getenv func(string) string, stdout io.Writer) (options, error) {
	var o options
	f := o.flags()
	if err := flags.Parse(f, args, getenv, stdout); err != nil {
		return options{}, err
	}
	if err := o.check(); err != nil {
		return options{}, flags.Error{Err: err}
	}
	if err := o.complete(); err != nil {
		return options{}, flags.Error{Err: err}
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
		{&o.CSIEndpoint, "csi-endpoint", socketName(o.DriverNames.Values[0].Name)},
		{&o.StateDir, "state-dir", "volumes"}, // The same under any name: what is there must be found again.
		{&o.LocalCA, "local-ca", "local-ca"},
	} {
		if *p.path == "" && o.KubeletRoot != "" {
			*p.path = filepath.Join(o.KubeletRoot, "plugins", spec.Driver, p.rest)
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

// selinuxContext matches user, role, type and level of a context. A policy may have no levels.
var selinuxContext = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}(:[A-Za-z0-9_.-]{1,64}){2}(:[A-Za-z0-9_.,:-]{1,255})?$`)

// cluster reports whether there is an API server.
func (o *options) cluster() bool { return o.Signer != signerLocal || o.Kubeconfig != "" }

// driverNames returns the names with their sockets.
func (o *options) driverNames() (all []driver.Name) {
	for i, name := range o.DriverNames.Values {
		endpoint := filepath.Join(o.KubeletRoot, "plugins", spec.Driver, socketName(name.Name))
		if i == 0 {
			endpoint = o.CSIEndpoint
		}
		all = append(all, driver.Name{Name: name.Name, Dialect: name.Dialect, Endpoint: endpoint})
	}
	return all
}

// socketName returns the file name of a driver's CSI socket. All are in one directory, which is all that the driver's
// pod has to mount.
func socketName(driver string) string {
	if driver == spec.Driver {
		return "csi.sock"
	}
	return driver + ".sock"
}

// defaults returns what volumes get that do not say.
func (o *options) defaults() volume.Defaults {
	d := volume.Defaults{Defaults: o.Defaults()}
	d.Gates, d.StartsWithout, d.AsPod = o.Gates.Values, o.StartsWithout, o.AsPod
	d.SELinuxContext = o.SELinuxContext
	d.PodCertificates = o.Signer == signerPodCertificate
	d.Trust, d.TrustFiles = o.Trust, slices.Sorted(maps.Keys(o.trustFiles()))
	return d
}

// check returns an error for flags that are missing, can't be used, or contradict each other.
func (o *options) check() error {
	switch {
	case o.NodeName == "":
		return errors.New("--node-name is required")
	case len(o.DriverNames.Values) > 1 && (o.CSIEndpoint != "" || o.KubeletRoot == ""):
		return errors.New("--csi-endpoint, and an empty --kubelet-root, go with one --driver-name")
	case o.KubeletRoot != "" && (!filepath.IsAbs(o.KubeletRoot) || filepath.Clean(o.KubeletRoot) != o.KubeletRoot):
		return fmt.Errorf("--kubelet-root=%s: a clean absolute path is needed", o.KubeletRoot)
	case !slices.Contains([]string{signerCertManager, signerPodCertificate, signerLocal}, o.Signer):
		return fmt.Errorf("--signer=%s: there are %s, %s and "+
			"%s", o.Signer, signerCertManager, signerPodCertificate, signerLocal)
	case o.SELinuxContext != "" && !selinuxContext.MatchString(o.SELinuxContext):
		return fmt.Errorf("--selinux-context=%s: <user>:<role>:<type>:<level> is needed, such as "+
			"system_u:object_r:container_file_t:s0", o.SELinuxContext)
	case len(o.trustFiles()) < len(o.TrustFiles.Values):
		return fmt.Errorf("--trust-file=%s: a name is given twice", o.TrustFiles)
	case !o.cluster() && (o.ConfigMap != "" || o.WatchPods || len(o.Gates.Values) > 0):
		return errors.New("--config-map, --watch-pods and --pod-readiness-gate need an API server: with " +
			"--signer=local, --kubeconfig names it")
	case o.AsPod && o.Signer == signerLocal:
		return errors.New("--use-token-request is for --signer=cert-manager: the embedded CA asks nobody")
	case o.AsPod && o.Signer == signerPodCertificate:
		return errors.New("--use-token-request is for --signer=cert-manager: with --signer=pod-certificate the node " +
			"asks")
	case o.KeepRequests != nil && o.Signer == signerPodCertificate:
		return errors.New("--keep-requests is for --signer=cert-manager: PodCertificateRequests are Kubernetes' to " +
			"delete")
	}
	if err := cmp.Or(o.Volumes.Check(), o.Log.Check()); err != nil {
		return err
	}
	if err := o.defaults().Check(); err != nil {
		return fmt.Errorf("--trust-domain=%s --spiffe-path=%s --trust=%s: "+
			"%w", o.TrustDomain, o.SPIFFEPath, o.Trust, err)
	}
	return nil
}
