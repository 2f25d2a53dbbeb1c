package status

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/yaml"

	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
)

// compiled compiles the policies that an API server has.
type compiled struct {
	client.Reader
	t *testing.T
}

func (c compiled) Get(ctx context.Context) (policy.Set, error) {
	compiler, err := policy.NewCompiler(policy.Policy{ClusterDomain: "cluster.local"})
	if err != nil {
		c.t.Fatal(err)
	}
	var list v1alpha1.CertificatePolicyList
	err = c.List(ctx, &list)
	return compiler.Set(list.Items), err
}

// newWriter is one for policies, each in YAML's flow style without the braces, and service accounts: "shop/web".
func newWriter(t *testing.T, calls interceptor.Funcs, accounts string, policies ...string) (*Writer, *bytes.Buffer) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	var objects []client.Object
	for i, spec := range policies {
		p := &v1alpha1.CertificatePolicy{ObjectMeta: metav1.ObjectMeta{Name: string(rune('a' + i)), Generation: 3}}
		if err := yaml.UnmarshalStrict([]byte("{"+spec+"}"), &p.Spec); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, p)
	}
	for _, account := range strings.Fields(accounts) {
		namespace, name, _ := strings.Cut(account, "/")
		objects = append(objects, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}})
	}
	api := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithStatusSubresource(&v1alpha1.CertificatePolicy{}).WithInterceptorFuncs(calls).Build()
	log := &bytes.Buffer{}
	return &Writer{compiled{api, t}, api, api, slog.New(slog.NewTextHandler(log, nil))}, log
}

// status returns what the status of policy a says, in one line.
func (w *Writer) status(t *testing.T) string {
	t.Helper()
	var p v1alpha1.CertificatePolicy
	if err := w.API.Get(t.Context(), client.ObjectKey{Name: "a"}, &p); err != nil {
		t.Fatal(err)
	}
	var line strings.Builder
	fmt.Fprint(&line, p.Status.ObservedGeneration)
	for _, n := range []*int32{p.Status.ServiceAccounts, p.Status.Namespaces} {
		if n == nil {
			line.WriteString(" ?")
		} else {
			fmt.Fprint(&line, " ", *n)
		}
	}
	for _, c := range p.Status.Conditions {
		if c.ObservedGeneration != p.Generation || c.LastTransitionTime.IsZero() {
			t.Errorf("%+v", c)
		}
		fmt.Fprint(&line, "; ", c.Type, "=", c.Status, " ", c.Reason, ": ", c.Message)
	}
	return line.String()
}

const (
	inForce  = "; Understood=True InForce: It is in force."
	none     = "; Selecting=False NoServiceAccount: No service account of the cluster is one that it counts for."
	everyone = "; Avoidable=False EveryServiceAccount: Policies select the pods of its namespaces, whichever service account they name."
	leaves   = "; Avoidable=True OtherServiceAccount: pods of the namespaces shop leave it by naming another service account, and may then have their own names: make a policy for those namespaces without serviceAccounts, too"
)

func selects(accounts, namespaces int) string {
	return fmt.Sprintf("; Selecting=True ServiceAccounts: It counts for pods of %d service accounts in %d namespaces.", accounts, namespaces)
}

func TestStatus(t *testing.T) {
	const accounts = "shop/web shop/default bank/default bank/web team-a/default"
	for name, row := range map[string]struct {
		policies []string
		want     string
	}{
		"a namespace":            {[]string{"namespaces: [shop]"}, "3 2 1" + inForce + selects(2, 1) + everyone},
		"all":                    {[]string{"namespaces: ['*']"}, "3 5 3" + inForce + selects(5, 3) + everyone},
		"an account":             {[]string{"namespaces: [shop], serviceAccounts: [web]"}, "3 1 1" + inForce + selects(1, 1) + leaves},
		"an account, and all":    {[]string{"namespaces: [shop], serviceAccounts: [web]", "namespaces: [shop]"}, "3 1 1" + inForce + selects(1, 1) + everyone},
		"an account and default": {[]string{"namespaces: [shop], serviceAccounts: [web]", "namespaces: ['*'], default: true"}, "3 1 1" + inForce + selects(1, 1) + everyone},
		"nobody":                 {[]string{"namespaces: [shopp]"}, "3 0 0" + inForce + none + everyone},
		"default":                {[]string{"namespaces: ['*'], default: true", "namespaces: [shop]", "namespaces: [bank], serviceAccounts: [web]"}, "3 2 2" + inForce + selects(2, 2) + everyone},
		"a default for nobody":   {[]string{"namespaces: ['*'], default: true", "namespaces: ['*']"}, "3 0 0" + inForce + none + everyone},
		"a mistake": {[]string{"namespaces: [shop], expressions: [{expression: x}]"}, "3 2 1; Understood=False Mistake: It allows nothing to the pods that it selects: spec.expressions[0]: " +
			`"x" is not understood: ERROR: <input>:1:1: undeclared reference to 'x' (in container '') | x | ^` + selects(2, 1) + everyone},
	} {
		w, log := newWriter(t, interceptor.Funcs{}, accounts, row.policies...)
		result, err := w.Reconcile(t.Context(), reconcile.Request{})
		if err != nil || result.RequeueAfter != recount || log.Len() > 0 {
			t.Errorf("%s: %+v, %v, %s", name, result, err, log)
		}
		if got := w.status(t); got != row.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, row.want)
		}
	}
}

// A status that stays as it is is not written again.
func TestAStatusIsWrittenOnce(t *testing.T) {
	writes := 0
	w, _ := newWriter(t, interceptor.Funcs{SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
		writes++
		return c.SubResource(sub).Patch(ctx, o, p, opts...)
	}}, "shop/web", "namespaces: [shop]", "namespaces: [bank]")
	reconciles := func(want int) {
		t.Helper()
		if _, err := w.Reconcile(t.Context(), reconcile.Request{}); err != nil || writes != want {
			t.Errorf("%d writes, want %d (%v)", writes, want, err)
		}
	}
	reconciles(2)
	reconciles(2)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "other"}}
	if err := w.API.Create(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	reconciles(3)
	if got, want := w.status(t), "3 2 1"+inForce+selects(2, 1)+everyone; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// The set of policies learns of a change by itself: where it is behind, the status is looked at again soon.
func TestASetThatIsBehind(t *testing.T) {
	w, _ := newWriter(t, interceptor.Funcs{}, "shop/web", "namespaces: [shop]")
	now := w.Policies
	compiler, err := policy.NewCompiler(policy.Policy{ClusterDomain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	before := v1alpha1.CertificatePolicy{ObjectMeta: metav1.ObjectMeta{Name: "a", Generation: 2}}
	for _, set := range []policy.Set{compiler.Set(nil), compiler.Set([]v1alpha1.CertificatePolicy{before})} {
		w.Policies = fixed(set)
		if result, err := w.Reconcile(t.Context(), reconcile.Request{}); err != nil || result.RequeueAfter != retry {
			t.Errorf("behind: %v, %v", result, err)
		}
	}
	w.Policies = now
	if result, err := w.Reconcile(t.Context(), reconcile.Request{}); err != nil || result.RequeueAfter != recount {
		t.Errorf("up to date: %v, %v", result, err)
	}
	if got, want := w.status(t), "3 1 1"+inForce+selects(1, 1)+everyone; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

type fixed policy.Set

func (f fixed) Get(context.Context) (policy.Set, error) { return policy.Set(f), nil }

func TestServiceAccountsThatCannotBeListed(t *testing.T) {
	w, log := newWriter(t, interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
		if _, ok := list.(*metav1.PartialObjectMetadataList); ok {
			return errors.New("forbidden")
		}
		return c.List(ctx, list, opts...)
	}}, "shop/web", "namespaces: [shop]")
	if result, err := w.Reconcile(t.Context(), reconcile.Request{}); err != nil || result.RequeueAfter != recount {
		t.Errorf("%+v, %v", result, err)
	}
	want := "3 ? ?" + inForce + "; Selecting=Unknown NotCounted: list the service accounts: forbidden" + everyone
	if got := w.status(t); got != want || !strings.Contains(log.String(), "list the service accounts: forbidden") {
		t.Errorf("got %s\nwant %s\n%s", got, want, log)
	}
}

func TestServiceAccountsByPages(t *testing.T) {
	pages := 0
	w, _ := newWriter(t, interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
		page, ok := list.(*metav1.PartialObjectMetadataList)
		if !ok {
			return c.List(ctx, list, opts...)
		}
		var o client.ListOptions
		o.ApplyOptions(opts)
		if want := []string{"", "second"}[pages]; o.Continue != want || o.Limit == 0 {
			t.Errorf("page %d: %+v", pages, o)
		}
		page.Items = []metav1.PartialObjectMetadata{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint(pages)}}}
		if pages++; pages == 1 {
			page.Continue = "second"
		}
		return nil
	}}, "", "namespaces: [shop]")
	if _, err := w.Reconcile(t.Context(), reconcile.Request{}); err != nil {
		t.Fatal(err)
	}
	if got, want := w.status(t), "3 2 1"+inForce+selects(2, 1)+everyone; got != want || pages != 2 {
		t.Errorf("%d pages, %s, want %s", pages, got, want)
	}
}

// Another replica, or the administrator, may be faster; without policies there is nothing to do.
func TestWritesThatFail(t *testing.T) {
	policies := schema.GroupResource{Group: "csi.mayfly.dev", Resource: "certificatepolicies"}
	for name, row := range map[string]struct {
		err  error
		want reconcile.Result
		text string
	}{
		"changed meanwhile": {apierrors.NewConflict(policies, "a", errors.New("changed")), reconcile.Result{RequeueAfter: retry}, ""},
		"deleted":           {apierrors.NewNotFound(policies, "a"), reconcile.Result{RequeueAfter: recount}, ""},
		"no right":          {errors.New("forbidden"), reconcile.Result{}, "write the status of CertificatePolicy a: forbidden"},
	} {
		w, _ := newWriter(t, interceptor.Funcs{SubResourcePatch: func(context.Context, client.Client, string, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
			return row.err
		}}, "", "namespaces: [shop]")
		result, err := w.Reconcile(t.Context(), reconcile.Request{})
		if got := fmt.Sprint(err); result != row.want || (row.text == "") != (err == nil) || err != nil && got != row.text {
			t.Errorf("%s: %+v, %v", name, result, err)
		}
	}
	w, _ := newWriter(t, interceptor.Funcs{}, "")
	if result, err := w.Reconcile(t.Context(), reconcile.Request{}); err != nil || result != (reconcile.Result{}) {
		t.Errorf("%+v, %v", result, err)
	}
	broken := errors.New("away")
	w.Policies = failing{broken}
	if _, err := w.Reconcile(t.Context(), reconcile.Request{}); !errors.Is(err, broken) {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f failing) Get(context.Context) (policy.Set, error) { return policy.Set{}, f.err }
