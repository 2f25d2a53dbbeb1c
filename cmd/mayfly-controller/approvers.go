package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mayfly-csi/mayfly/cmd/flags"
	"github.com/mayfly-csi/mayfly/signer/controller/rights"
)

// approversOptions are the flags of mayfly-controller approvers.
type approversOptions struct {
	Kubeconfig string
	Controller string
}

// flags returns the flags, set to their defaults. Their names and texts are the source of docs/controller.md.
func (o *approversOptions) flags() *flag.FlagSet {
	f := flag.NewFlagSet("mayfly-controller approvers", flag.ContinueOnError)
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig file for the API server, of someone who may read roles, their bindings and admission policies; empty: the pod's service account")
	f.StringVar(&o.Controller, "controller", "system:serviceaccount:mayfly-system:mayfly-controller", "user that the controller is for the API server")
	return f
}

// approvers lists who else may approve what pods ask for themselves. If somebody may, that is its error.
func approvers(ctx context.Context, args []string, getenv func(string) string, stdout, _ io.Writer) error {
	var o approversOptions
	if err := flags.Parse(o.flags(), args, getenv, stdout); err != nil {
		return err
	}
	api, err := reader(o.Kubeconfig)
	if err != nil {
		return err
	}
	objects, err := rights.Read(ctx, api)
	if err != nil {
		return err
	}
	kept, err := rights.Kept(ctx, api, o.Controller)
	if err != nil {
		return err
	}
	return report(stdout, objects.Approvers(), o.Controller, kept)
}

// reader reads from the API server.
func reader(kubeconfig string) (client.Reader, error) {
	config, err := flags.APIServer(kubeconfig, "mayfly-controller")
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(rbacv1.AddToScheme(scheme), admissionv1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	api, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}
	return api, nil
}

// report writes what an administrator reads. Its error is that somebody may approve who must not.
func report(w io.Writer, all []rights.Approver, controller string, kept bool) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "WHO\tSIGNERS\tNAMESPACES\tBY\t")
	others := 0
	for _, a := range all {
		if a.Subject == "User "+controller {
			continue
		}
		note := ""
		if a.Administrator {
			note = "(an administrator)"
		} else {
			others++
		}
		fmt.Fprintln(table, strings.Join([]string{a.Subject, list(a.Signers), list(a.Namespaces), list(a.By), note}, "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return conclusion(w, others, kept)
}

func list(all []string) string { return strings.Join(all, ",") }

// conclusion returns what the table means.
func conclusion(w io.Writer, others int, kept bool) error {
	text := "Nobody but mayfly-controller and administrators may approve CertificateRequests, by the roles of this cluster.\n"
	switch {
	case others > 0 && !kept:
		return fmt.Errorf("%d besides mayfly-controller may approve whatever a pod asks for with its own token: take that right from them, or apply the policy %s", others, rights.Policy)
	case others > 0:
		text = fmt.Sprintf("%d besides mayfly-controller may approve CertificateRequests. The policy %s keeps them from those that pods make for themselves.\n", others, rights.Policy)
	}
	_, err := io.WriteString(w, text)
	return err
}
