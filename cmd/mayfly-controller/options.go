package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/mayfly-csi/mayfly/cmd/flags"
	"github.com/mayfly-csi/mayfly/signer/controller/approver"
	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/controller/proof"
)

// options are the flags of mayfly-controller run.
type options struct {
	flags.Volumes
	flags.Log

	Kubeconfig     string
	NodePlugin     string
	PodCIDRs       *flags.Repeated[netip.Prefix]
	ClusterDomain  string
	AllowAnyName   bool
	MetricsAddress string
	HealthAddress  string
}

// flags are set to their defaults. Their names and texts are the source of docs/controller.md.
func (o *options) flags() *flag.FlagSet {
	f := flag.NewFlagSet("mayfly-controller run", flag.ContinueOnError)
	o.Volumes.Add(f)
	o.Log.Add(f)
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig file for the API server; empty: the pod's service account")
	f.StringVar(&o.NodePlugin, "node-plugin", "system:serviceaccount:mayfly-system:mayfly", "user that the node plugins are for the API server: their requests are decided on, and those of pods for volumes that ask as the pod")
	o.PodCIDRs = flags.Repeat(netip.ParsePrefix)
	f.Var(o.PodCIDRs, "pod-cidr", "where the IPs of pods lie, besides the spec.podCIDRs of their nodes; may be repeated, or be several with commas between them")
	f.StringVar(&o.ClusterDomain, "cluster-domain", "cluster.local", "domain of the names of services")
	f.BoolVar(&o.AllowAnyName, "allow-any-name", false, "approve whatever a pod's volume asks for, a CA's certificate included: this trusts whoever may create pods")
	f.StringVar(&o.MetricsAddress, "metrics-address", "", "address to serve Prometheus metrics on, such as :9402; empty: none")
	f.StringVar(&o.HealthAddress, "health-address", "", "address to serve /healthz and /readyz on, such as :9403; empty: none")
	return f
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

// check is for what flags must say.
func (o *options) check() error {
	if err := cmp.Or(o.Volumes.Check(), o.Log.Check()); err != nil {
		return err
	}
	if o.NodePlugin == "" {
		return errors.New("--node-plugin is required")
	}
	if wrong := validation.IsDNS1123Subdomain(o.ClusterDomain); len(wrong) > 0 {
		return fmt.Errorf("--cluster-domain=%s: %s", o.ClusterDomain, wrong[0])
	}
	if err := o.Defaults().Check(); err != nil {
		return fmt.Errorf("--trust-domain=%s --spiffe-path=%s: %w", o.TrustDomain, o.SPIFFEPath, err)
	}
	return nil
}

// callers are those whose requests are decided on.
func (o *options) callers() approver.Callers { return approver.Callers{NodePlugin: o.NodePlugin} }

// rules are what decisions go by.
func (o *options) rules() proof.Rules {
	return proof.Rules{
		Drivers:  o.DriverNames.Values,
		Defaults: o.Defaults(),
		Policy:   policy.Policy{ClusterDomain: o.ClusterDomain, AnyName: o.AllowAnyName},
		PodCIDRs: o.PodCIDRs.Values,
	}
}
