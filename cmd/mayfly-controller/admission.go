package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
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
	Cluster         flags.Cluster
	Controller      string
	NodePlugin      string
	PodCertificates bool
	Annotations     *flags.Repeated[string]
}

// flags returns the flags, set to their defaults. Their names and texts are the source of docs/controller.md.
func (o *admissionOptions) flags() *flag.FlagSet {
	f := flag.NewFlagSet("mayfly-controller admission check", flag.ContinueOnError)
	o.Cluster.Add(f)
	f.StringVar(&o.Controller, "controller", controllerUser, "user that the controller is for the API server")
	f.StringVar(&o.NodePlugin, "node-plugin", nodePluginUser, "user that the node plugins are for the API server")
	f.BoolVar(&o.PodCertificates, "pod-certificates", false,
		"check the policies of mode pod-certificate, too: those of manifests/modes/pod-certificate")
	o.Annotations = flags.Repeat(annotation)
	f.Var(o.Annotations, "issuer-annotation", "annotation of groups that issuers read which mayfly-requests lets pass "+
		"besides those of the manifests; may be repeated, or be several with commas between them, "+
		"in the order of the policy")
	return f
}

// annotation reads the key of an annotation.
func annotation(key string) (string, error) {
	if wrong := validation.IsQualifiedName(strings.ToLower(key)); len(wrong) > 0 {
		return "", errors.New(wrong[0])
	}
	return key, nil
}

// files returns the manifests that have the policies.
func (o *admissionOptions) files() string {
	const always = "manifests/controller/policies.yaml"
	if o.PodCertificates {
		return always + " and manifests/modes/pod-certificate/policies.yaml"
	}
	return always
}

// policies returns the policies of the manifests, of the users and annotations that there are.
func (o *admissionOptions) policies() string {
	quoted := func(text string) string { return "'" + text + "'" }
	const last = "'spiffe.csi.cert-manager.io/identity'"
	known := last
	for _, key := range o.Annotations.Values {
		known += ", " + quoted(key)
	}
	text := manifests.Policies()
	if o.PodCertificates {
		text += "---\n" + manifests.PodCertificatePolicies()
	}
	return strings.NewReplacer(
		quoted(controllerUser), quoted(o.Controller), quoted(nodePluginUser), quoted(o.NodePlugin), last, known,
	).Replace(text)
}

// checkAdmission lists the admission policies that are not in force as the manifests have them. If there are any,
// others may decide on what node plugins ask: that is its error.
func checkAdmission(ctx context.Context, args []string, getenv func(string) string, stdout, _ io.Writer) error {
	var o admissionOptions
	if err := flags.Parse(o.flags(), args, getenv, stdout); err != nil {
		return err
	}
	problems, err := o.problems(ctx)
	if err != nil { // It could not look.
		return flags.Error{Err: err}
	}
	return report(stdout, problems, o)
}

// problems returns what is not in force.
func (o *admissionOptions) problems(ctx context.Context) ([]string, error) {
	config, _, err := o.Cluster.Connect("mayfly-controller")
	if err != nil {
		return nil, err
	}
	wanted, err := admission.Parse(o.policies())
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := admissionv1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	api, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}
	return admission.Check(ctx, api, wanted)
}

// report writes what an administrator reads.
func report(to io.Writer, problems []string, o admissionOptions) error {
	for _, problem := range problems {
		fmt.Fprintln(to, problem)
	}
	if n := len(problems); n > 0 {
		return fmt.Errorf("%d of the objects of %s are not in force: others than %s may decide on what %s asks, "+
			"or one of them can do more than it should", n, o.files(), o.Controller, o.NodePlugin)
	}
	_, err := fmt.Fprintf(to, "Nobody but %s decides on what %s asks.\n", o.Controller, o.NodePlugin)
	return err
}
