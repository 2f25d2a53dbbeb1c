package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

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
	Cluster flags.Cluster

	Namespace     string
	AllNamespaces bool
	Filenames     *flags.Repeated[string]
	Output        string
	All           bool
}

// flags returns the flags, set to their defaults. Their names and texts are the source of docs/controller.md.
func (o *checkOptions) flags() *flag.FlagSet {
	f := flag.NewFlagSet("mayfly-controller policy check", flag.ContinueOnError)
	o.addTo(f)
	o.Cluster.Add(f)
	f.StringVar(&o.Namespace, "namespace", "",
		"-n: namespace of the pods that are looked at, and of pods of files that have none; "+
			"empty: all namespaces, and that of the kubeconfig's context")
	f.BoolVar(&o.AllNamespaces, "all-namespaces", false,
		"-A: look at the pods of all namespaces, whatever --namespace says")
	o.Filenames = flags.Repeat(func(text string) (string, error) { return text, nil })
	f.Var(o.Filenames, "filename",
		"-f: file, or directory of files, with CertificatePolicies that are to be added, or to replace those of their "+
			"names, and with pods and workloads that are to come; -: standard input; may be repeated, or be several "+
			"with commas between them; without: what is denied today is listed")
	f.StringVar(&o.Output, "output", "table", "-o: table or json")
	f.BoolVar(&o.All, "all", false, "list volumes that are denied today, too")
	return f
}

// letters returns the letters that stand for flags, as kubectl has them.
func letters() map[string]string {
	return map[string]string{"f": "filename", "n": "namespace", "A": "all-namespaces", "o": "output"}
}

func (o *checkOptions) check() error {
	switch {
	case slices.Contains(o.Filenames.Values, ""):
		return errors.New("--filename names no file")
	case !slices.Contains([]string{"table", "json"}, o.Output):
		return fmt.Errorf("--output=%s: there are table and json", o.Output)
	}
	return o.complete()
}

// errDenied is that something would be denied. All other errors are that the check could not look.
var errDenied = errors.New("denied")

// check lists what the policies of files would deny and newly allow of the volumes of pods that live, or, without
// files, what is denied today, and what pods of files would get. That something is denied is an error with exit code 1,
// and what keeps it from looking one with 2.
func check(ctx context.Context, args []string, getenv func(string) string, stdout, _ io.Writer) error {
	var o checkOptions
	if err := flags.Parse(o.flags(), flags.Long(args, letters()), getenv, stdout); err != nil {
		return err
	}
	err := o.check()
	if err == nil {
		err = o.look(ctx, stdout)
	}
	if err != nil && !errors.Is(err, errDenied) {
		return flags.Error{Err: err}
	}
	return err
}

func (o *checkOptions) look(ctx context.Context, stdout io.Writer) error {
	added, err := o.read()
	if err != nil {
		return err
	}
	api, namespace, err := o.client()
	if err != nil {
		return err
	}
	change, report, err := o.change(ctx, api, added.Policies)
	if err != nil {
		return err
	}
	report, err = o.report(ctx, api, change, report)
	if err != nil {
		return err
	}
	report.Others = added.Others
	for _, pod := range added.Pods {
		report.Planned = append(report.Planned, change.Plan(pod, namespace)...)
	}
	if len(o.Filenames.Values) > 0 && !o.All {
		report.Denials = slices.DeleteFunc(report.Denials, func(d review.Denial) bool { return !d.New })
	}
	if err := o.print(stdout, report); err != nil {
		return err
	}
	return denied(report)
}

// report looks at the pods of the cluster, and completes what is known of the policies.
func (o *checkOptions) report(
	ctx context.Context, api client.Reader, change review.Change, known review.Report,
) (review.Report, error) {
	namespace := o.Namespace
	if o.AllNamespaces {
		namespace = ""
	}
	report, err := change.Of(ctx, api, namespace)
	report.Policies, report.Added = known.Policies, known.Added
	report.Warnings = append(report.Warnings, known.Warnings...)
	return report, err
}

// denied returns an error if something is denied that the report lists.
func denied(report review.Report) error {
	planned := 0
	for _, p := range report.Planned {
		if !p.Approved {
			planned++
		}
	}
	var all []string
	if n := len(report.Denials); n > 0 {
		all = append(all, fmt.Sprintf("%d of %d volumes of running pods", n, report.Volumes))
	}
	if planned > 0 {
		all = append(all, fmt.Sprintf("%d of %d volumes of pods of files", planned, len(report.Planned)))
	}
	if len(all) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", errDenied, strings.Join(all, " and "))
}

// read reads the files.
func (o *checkOptions) read() (all review.Objects, err error) {
	for _, name := range o.Filenames.Values {
		files, err := filesOf(name)
		if err != nil {
			return all, fmt.Errorf("read policies: %w", err)
		}
		for _, name := range files {
			objects, err := readFile(name)
			if err != nil {
				return all, err
			}
			all.Add(objects)
		}
	}
	if len(o.Filenames.Values) > 0 && len(all.Policies)+len(all.Pods) == 0 {
		return all, fmt.Errorf("read policies from %s: there is no CertificatePolicy, and no pod or workload",
			o.Filenames)
	}
	return all, nil
}

// filesOf returns a file, or those of a directory that have a name as kubectl wants it.
func filesOf(name string) (files []string, err error) {
	if name == "-" {
		return []string{name}, nil
	}
	info, err := os.Stat(name)
	if err != nil || !info.IsDir() {
		return []string{name}, err
	}
	entries, err := os.ReadDir(name)
	for _, entry := range entries {
		if slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(entry.Name())) {
			files = append(files, filepath.Join(name, entry.Name()))
		}
	}
	return files, err
}

func readFile(name string) (objects review.Objects, err error) {
	file := os.Stdin
	if name != "-" {
		if file, err = os.Open(name); err != nil { // #nosec G304 -- Whoever runs the command names it.
			return objects, fmt.Errorf("read policies: %w", err)
		}
	}
	objects, err = review.Read(file)
	_ = file.Close()
	if err != nil {
		return objects, fmt.Errorf("read policies from %s: %w", name, err)
	}
	return objects, nil
}

// client returns the API server, and the namespace of pods of files that have none.
func (o *checkOptions) client() (api client.Client, namespace string, err error) {
	config, namespace, err := o.Cluster.Connect("mayfly-controller")
	if err != nil {
		return nil, "", err
	}
	if o.Namespace != "" {
		namespace = o.Namespace
	}
	scheme, err := newScheme()
	if err != nil {
		return nil, "", err
	}
	api, err = client.New(config, client.Options{Scheme: scheme})
	return api, namespace, err
}

// change returns the change from the policies of the cluster to those with the added ones, and what is to be reported
// of them.
func (o *checkOptions) change(
	ctx context.Context, api client.Reader, added []v1alpha1.CertificatePolicy,
) (c review.Change, about review.Report, err error) {
	var today v1alpha1.CertificatePolicyList
	if err := api.List(ctx, &today); err != nil && !meta.IsNoMatchError(err) { // The CRD may come later.
		return c, about, fmt.Errorf("list the CertificatePolicies: %w", err)
	}
	rules := o.rules()
	if rules.Defaults.Live, err = o.profiles(ctx, api); err != nil {
		return c, about, err
	}
	compiler, err := policy.NewCompiler(o.policy())
	if err != nil {
		return c, about, err
	}
	for _, p := range added {
		if err := compiler.Compile(p).Err; err != nil {
			return c, about, fmt.Errorf("CertificatePolicy %s: %w", p.Name, err)
		}
	}
	then := compiler.Set(review.Merge(today.Items, added))
	c = review.Change{Today: rules, Then: rules, Policies: then.Names}
	c.Today.Policy, c.Then.Policy = compiler.Set(today.Items), then
	return c, review.Report{Policies: len(today.Items), Added: len(added), Warnings: then.Warnings()}, nil
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
