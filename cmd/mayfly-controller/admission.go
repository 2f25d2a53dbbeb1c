package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mayfly-csi/mayfly/cmd/flags"
	"github.com/mayfly-csi/mayfly/manifests"
	"github.com/mayfly-csi/mayfly/signer/controller/admission"
)

// The users of the manifests' service accounts.
const (
	nodePluginUser = "system:serviceaccount:mayfly-system:mayfly"
	controllerUser = "system:serviceaccount:mayfly-system:mayfly-controller"
)

// admissionOptions are the flags of mayfly-controller admission check.
type admissionOptions struct {
	Kubeconfig string
	Controller string
	NodePlugin string
}

// flags returns the flags, set to their defaults. Their names and texts are the source of docs/controller.md.
func (o *admissionOptions) flags() *flag.FlagSet {
	f := flag.NewFlagSet("mayfly-controller admission check", flag.ContinueOnError)
	f.StringVar(&o.Kubeconfig, "kubeconfig", "",
		"kubeconfig file for the API server, of someone who may read admission policies; empty: the pod's service account")
	f.StringVar(&o.Controller, "controller", controllerUser, "user that the controller is for the API server")
	f.StringVar(&o.NodePlugin, "node-plugin", nodePluginUser, "user that the node plugins are for the API server")
	return f
}

// policies returns the policies of the manifests, of the users that there are.
func (o *admissionOptions) policies() string {
	quoted := func(user string) string { return "'" + user + "'" }
	users := strings.NewReplacer(
		quoted(controllerUser), quoted(o.Controller), quoted(nodePluginUser), quoted(o.NodePlugin),
	)
	return users.Replace(manifests.Policies())
}

// checkAdmission lists the admission policies that are not in force as the manifests have them. If there are any, others
// may decide on what node plugins ask: that is its error.
func checkAdmission(ctx context.Context, args []string, getenv func(string) string, stdout, _ io.Writer) error {
	var o admissionOptions
	if err := flags.Parse(o.flags(), args, getenv, stdout); err != nil {
		return err
	}
	config, err := flags.APIServer(o.Kubeconfig, "mayfly-controller")
	if err != nil {
		return err
	}
	wanted, err := admission.Parse(o.policies())
	if err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := admissionv1.AddToScheme(scheme); err != nil {
		return err
	}
	api, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("find the API server: %w", err)
	}
	problems, err := admission.Check(ctx, api, wanted)
	if err != nil {
		return err
	}
	return report(stdout, problems, o)
}

// report writes what an administrator reads.
func report(to io.Writer, problems []string, o admissionOptions) error {
	for _, problem := range problems {
		fmt.Fprintln(to, problem)
	}
	if n := len(problems); n > 0 {
		return fmt.Errorf("%d of the objects of manifests/controller/policies.yaml are not in force: "+
			"others than %s may decide on what %s asks", n, o.Controller, o.NodePlugin)
	}
	_, err := fmt.Fprintf(to, "Nobody but %s decides on what %s asks.\n", o.Controller, o.NodePlugin)
	return err
}
