package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mayfly-csi/mayfly/cmd/flags"
	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
	"github.com/mayfly-csi/mayfly/signer/controller/review"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// checkOptions are the flags of mayfly-controller policy check.
type checkOptions struct {
	ruleOptions

	Filenames *flags.Repeated[string]
	Output    string
	All       bool
}

// flags returns the flags, set to their defaults. Their names and texts are the source of docs/controller.md.
func (o *checkOptions) flags() *flag.FlagSet {
	f := flag.NewFlagSet("mayfly-controller policy check", flag.ContinueOnError)
	o.addTo(f)
	o.Filenames = flags.Repeat(func(text string) (string, error) { return text, nil })
	f.Var(o.Filenames, "filename",
		"file with CertificatePolicies that are to be added, or to replace those of their names; -: standard input; "+
			"may be repeated, or be several with commas between them")
	f.StringVar(&o.Output, "output", "table", "table or json")
	f.BoolVar(&o.All, "all", false,
		"list all volumes that would be denied, those that are denied today among them; without --filename those "+
			"alone")
	return f
}

func (o *checkOptions) check() error {
	switch {
	case len(o.Filenames.Values) == 0 && !o.All || slices.Contains(o.Filenames.Values, ""):
		return errors.New("--filename is required, or --all")
	case !slices.Contains([]string{"table", "json"}, o.Output):
		return fmt.Errorf("--output=%s: there are table and json", o.Output)
	}
	return o.complete()
}

// check lists which volumes of pods that live the policies of files would deny. That there are some that are approved
// today is an error.
func check(ctx context.Context, args []string, getenv func(string) string, stdout, _ io.Writer) error {
	var o checkOptions
	if err := flags.Parse(o.flags(), args, getenv, stdout); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return flags.Error{Err: err}
	}
	added, err := o.read()
	if err != nil {
		return err
	}
	api, err := o.client()
	if err != nil {
		return err
	}
	change, warnings, err := o.change(ctx, api, added)
	if err != nil {
		return err
	}
	report, err := change.Of(ctx, api)
	if err != nil {
		return err
	}
	report.Warnings = warnings
	if err := o.print(stdout, report); err != nil {
		return err
	}
	if n := report.New(); n > 0 {
		return fmt.Errorf("the policies would deny %d of %d volumes of running pods that are approved "+
			"today", n, report.Volumes)
	}
	return nil
}

// read reads the files.
func (o *checkOptions) read() (all []v1alpha1.CertificatePolicy, err error) {
	for _, name := range o.Filenames.Values {
		file := os.Stdin
		if name != "-" {
			if file, err = os.Open(name); err != nil { // #nosec G304 -- Whoever runs the command names it.
				return nil, fmt.Errorf("read policies: %w", err)
			}
		}
		policies, err := review.ReadPolicies(file)
		_ = file.Close()
		if err != nil {
			return nil, fmt.Errorf("read policies from %s: %w", name, err)
		}
		all = review.Merge(all, policies)
	}
	return all, nil
}

func (o *checkOptions) client() (client.Client, error) {
	api, err := flags.APIServer(o.Kubeconfig, "mayfly-controller")
	if err != nil {
		return nil, err
	}
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	return client.New(api, client.Options{Scheme: scheme})
}

// change returns the change from the policies of the cluster to those with the added ones, and warnings about the
// latter.
func (o *checkOptions) change(
	ctx context.Context, api client.Reader, added []v1alpha1.CertificatePolicy,
) (c review.Change, warnings []string, err error) {
	var today v1alpha1.CertificatePolicyList
	if err := api.List(ctx, &today); err != nil && !meta.IsNoMatchError(err) { // The CRD may come later.
		return c, nil, fmt.Errorf("list the CertificatePolicies: %w", err)
	}
	rules := o.rules()
	if rules.Defaults.Live, err = o.profiles(ctx, api); err != nil {
		return c, nil, err
	}
	compiler, err := policy.NewCompiler(o.policy())
	if err != nil {
		return c, nil, err
	}
	for _, p := range added {
		if err := compiler.Compile(p).Err; err != nil {
			return c, nil, fmt.Errorf("CertificatePolicy %s: %w", p.Name, err)
		}
	}
	c = review.Change{Today: rules, Then: rules}
	then := compiler.Set(review.Merge(today.Items, added))
	c.Today.Policy, c.Then.Policy = compiler.Set(today.Items), then
	return c, then.Warnings(), nil
}

// profiles returns what the operator sets for volumes; nil: there are none.
func (o *checkOptions) profiles(ctx context.Context, api client.Reader) (*spec.Profiles, error) {
	namespace, name, ok := strings.Cut(o.Volumes.ConfigMap, "/")
	if !ok {
		return nil, nil
	}
	var found corev1.ConfigMap
	err := api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &found)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("read ConfigMap %s: %w", o.Volumes.ConfigMap, err)
	}
	profiles, err := spec.ParseProfiles(found.Data)
	if err != nil {
		return nil, fmt.Errorf("read the profiles of ConfigMap %s: %w", o.Volumes.ConfigMap, err)
	}
	return profiles, nil
}

// print prints the denials that are new, or all.
func (o *checkOptions) print(to io.Writer, report review.Report) error {
	if !o.All {
		report.Denials = slices.DeleteFunc(report.Denials, func(d review.Denial) bool { return !d.New })
	}
	if o.Output == "json" {
		encoder := json.NewEncoder(to)
		encoder.SetIndent("", "  ")
		return encoder.Encode(report)
	}
	table := tabwriter.NewWriter(to, 0, 8, 3, ' ', 0)
	if len(report.Denials) > 0 {
		fmt.Fprintln(table, "NAMESPACE\tPOD\tSERVICE ACCOUNT\tVOLUME\tTODAY\tMESSAGE")
	}
	for _, d := range report.Denials {
		today := "denied"
		if d.New {
			today = "approved"
		}
		cells := []string{d.Namespace, d.Pod, d.ServiceAccount, d.Volume, today, d.Message}
		fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, warning := range report.Warnings {
		if _, err := fmt.Fprintln(to, "Warning: "+warning); err != nil {
			return err
		}
	}
	return nil
}
