package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/mayfly-csi/mayfly/cmd/flags"
	"github.com/mayfly-csi/mayfly/signer/controller/certificaterequests"
	"github.com/mayfly-csi/mayfly/signer/controller/cluster"
	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/controller/startup"
	"github.com/mayfly-csi/mayfly/signer/decide"
)

// ruleOptions are the flags by which requests are decided.
type ruleOptions struct {
	Volumes       flags.Volumes
	PodCIDRs      *flags.Repeated[netip.Prefix]
	Ignored       *flags.Repeated[string]
	ClusterDomain string
}

// options are the flags of mayfly-controller run.
type options struct {
	ruleOptions
	Log flags.Log

	Kubeconfig      string
	NodePlugin      string
	PodCertificates bool
	CANamespace     string
	OwnCA           string
	MetricsAddress  string
	HealthAddress   string
	Audit           auditOptions
	NodeName        string
	StartupTaint    bool
	NodeRate        int
}

// flags returns the flags, set to their defaults. Their names and texts are the source of docs/controller.md.
func (o *options) flags() *flag.FlagSet {
	f := flag.NewFlagSet("mayfly-controller run", flag.ContinueOnError)
	o.addTo(f)
	o.Log.Add(f)
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig file for the API server; empty: the pod's service account")
	f.StringVar(&o.NodePlugin, "node-plugin", nodePluginUser,
		"user that the node plugins are for the API server: their requests are decided on, and no others")
	f.BoolVar(&o.PodCertificates, "pod-certificates", false,
		"sign PodCertificateRequests: those of node plugins with --signer=pod-certificate, and those of the "+
			"kubelets for podCertificate volumes; needs Kubernetes 1.37 and manifests/modes/pod-certificate")
	f.StringVar(&o.CANamespace, "ca-namespace", "mayfly-ca",
		"namespace with the Secrets of the controller's CAs, and nothing else; with --pod-certificates")
	f.StringVar(&o.OwnCA, "own-ca", "mayfly-ca",
		"Secret of the controller's own CA, which it makes and rotates; with --pod-certificates")
	f.StringVar(&o.NodeName, "node-name", "",
		"node that the controller runs on: it warns if that is a worker; empty: it is not known")
	f.BoolVar(&o.StartupTaint, "startup-taint", false,
		"take the taint "+startup.Taint+" off nodes on which the drivers of --driver-name are registered; needs "+
			"manifests/options/startup-taint.yaml")
	f.IntVar(&o.NodeRate, "node-rate", 10,
		"requests of a node that a replica decides on in a second, on average; for pods of one namespace a quarter of "+
			"that; a hundred seconds' worth may come at once, and more wait")
	o.Audit.addTo(f)
	f.StringVar(&o.MetricsAddress, "metrics-address", "",
		"address to serve Prometheus metrics on, such as :9402; empty: none")
	f.StringVar(&o.HealthAddress, "health-address", "",
		"address to serve /healthz and /readyz on, such as :9403; empty: none")
	return f
}

// addTo sets the flags to their defaults.
func (j *ruleOptions) addTo(f *flag.FlagSet) {
	j.Volumes.Add(f)
	j.PodCIDRs = flags.Repeat(netip.ParsePrefix)
	f.Var(j.PodCIDRs, "pod-cidr",
		"where the IPs of pods lie, besides the spec.podCIDRs of their nodes; may be repeated, or be several with "+
			"commas between them")
	j.Ignored = flags.Repeat(ignoredKey)
	f.Var(j.Ignored, "ignore-metadata",
		"label or annotation that an admission webhook adds to CertificateRequests, and that does not count there: "+
			"its key, or the beginning of keys and *; may be repeated, or be several with commas between them")
	f.StringVar(&j.ClusterDomain, "cluster-domain", "cluster.local", "domain of the names of services")
}

// parse reads the flags, each from the environment first and then from the command line.
func parse(args []string, getenv func(string) string, stdout io.Writer) (options, error) {
	var o options
	if err := flags.Parse(o.flags(), args, getenv, stdout); err != nil {
		return options{}, err
	}
	if err := o.check(); err != nil {
		return options{}, flags.Error{Err: err}
	}
	return o, nil
}

// check returns an error for flags that can't be used.
func (o *options) check() error {
	if err := o.Log.Check(); err != nil {
		return err
	}
	if o.NodePlugin == "" {
		return errors.New("--node-plugin is required")
	}
	if o.PodCertificates && (o.CANamespace == "" || o.OwnCA == "") {
		return errors.New("--pod-certificates needs --ca-namespace and --own-ca")
	}
	if o.NodeRate < cluster.LeastRate {
		return fmt.Errorf("--node-rate=%d: at least %d is needed", o.NodeRate, cluster.LeastRate)
	}
	if err := o.Audit.check(); err != nil {
		return err
	}
	return o.complete()
}

// ignoredKey reads a key, or the beginning of one that ends in *.
func ignoredKey(text string) (string, error) {
	begin, open := strings.CutSuffix(text, "*")
	if open {
		begin += "x"
	}
	if wrong := validation.IsQualifiedName(begin); len(wrong) > 0 || open && begin == "x" {
		return "", errors.New("it is not the key of a label or annotation, nor the beginning of one and *")
	}
	return text, nil
}

// complete returns an error for flags that can't be used.
func (j *ruleOptions) complete() error {
	if err := j.Volumes.Check(); err != nil {
		return err
	}
	if wrong := validation.IsDNS1123Subdomain(j.ClusterDomain); len(wrong) > 0 {
		return fmt.Errorf("--cluster-domain=%s: %s", j.ClusterDomain, wrong[0])
	}
	if err := j.Volumes.Defaults().Check(); err != nil {
		return fmt.Errorf("--trust-domain=%s --spiffe-path=%s: %w", j.Volumes.TrustDomain, j.Volumes.SPIFFEPath, err)
	}
	return nil
}

// callers returns those whose requests are decided on.
func (o *options) callers() certificaterequests.Callers {
	return certificaterequests.Callers{NodePlugin: o.NodePlugin}
}

// rules returns what decisions go by, where there are no policies.
func (j *ruleOptions) rules() decide.Rules {
	return decide.Rules{
		Drivers: j.Volumes.DriverNames.Values, Defaults: j.Volumes.Defaults(), ClusterDomain: j.ClusterDomain,
		Policy: j.policy(), PodCIDRs: j.PodCIDRs.Values, Ignored: j.Ignored.Values,
	}
}

// policy returns the one for pods that no CertificatePolicy selects.
func (j *ruleOptions) policy() policy.Policy {
	return policy.Policy{ClusterDomain: j.ClusterDomain}
}
