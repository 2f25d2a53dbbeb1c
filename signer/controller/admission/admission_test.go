package admission

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/mayfly-csi/mayfly/manifests"
)

const decisions = "mayfly-decisions"

type (
	policy  = admissionv1.ValidatingAdmissionPolicy
	binding = admissionv1.ValidatingAdmissionPolicyBinding
)

// parsed are the objects of the manifests.
func parsed(t *testing.T) []client.Object {
	t.Helper()
	all, err := Parse(manifests.Policies() + "---\n" + manifests.PodCertificatePolicies())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// the returns the object of a kind with a name.
func the[T client.Object](t *testing.T, all []client.Object, name string) (found T) {
	t.Helper()
	for _, o := range all {
		if one, ok := o.(T); ok && o.GetName() == name {
			return one
		}
	}
	t.Fatalf("there is no %T %s", found, name)
	return found
}

// Whatever is changed of a policy or its binding is a problem, and what the API server adds by itself is none.
func TestCheck(t *testing.T) {
	const (
		policyDiffers  = "ValidatingAdmissionPolicy mayfly-decisions is not as the manifests have it"
		bindingDiffers = "ValidatingAdmissionPolicyBinding mayfly-decisions is not as the manifests have it"
	)
	ignore, exact := admissionv1.Ignore, admissionv1.Exact
	fail, equivalent, everywhere := admissionv1.Fail, admissionv1.Equivalent, admissionv1.AllScopes
	some := &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	for name, row := range map[string]struct {
		change func(*policy, *binding)
		want   []string
	}{
		"as they should be": {func(*policy, *binding) {}, nil},
		"with the API server's defaults": {func(p *policy, _ *binding) {
			p.UID, p.Labels, p.Spec.FailurePolicy = "uid", map[string]string{"a": "b"}, &fail
			m := p.Spec.MatchConstraints
			m.MatchPolicy, m.NamespaceSelector, m.ObjectSelector = &equivalent, &metav1.LabelSelector{}, &metav1.LabelSelector{}
			m.ResourceRules[0].Scope = &everywhere
		}, nil},
		"it lets errors by": {func(p *policy, _ *binding) {
			p.Spec.FailurePolicy = &ignore
		}, []string{policyDiffers}},
		"another controller": {func(p *policy, _ *binding) {
			first := &p.Spec.Validations[0]
			first.Expression = strings.ReplaceAll(first.Expression, "mayfly-controller", "bob")
		}, []string{policyDiffers}},
		"a condition more": {func(p *policy, _ *binding) {
			never := admissionv1.MatchCondition{Name: "never", Expression: "false"}
			p.Spec.MatchConditions = append(p.Spec.MatchConditions, never)
		}, []string{policyDiffers}},
		"some namespaces": {func(p *policy, _ *binding) {
			p.Spec.MatchConstraints.NamespaceSelector = some
		}, []string{policyDiffers}},
		"some objects": {func(p *policy, _ *binding) {
			p.Spec.MatchConstraints.ObjectSelector = some
		}, []string{policyDiffers}},
		"an exception": {func(p *policy, _ *binding) {
			p.Spec.MatchConstraints.ExcludeResourceRules = make([]admissionv1.NamedRuleWithOperations, 1)
		}, []string{policyDiffers}},
		"another version of the API": {func(p *policy, _ *binding) {
			p.Spec.MatchConstraints.MatchPolicy = &exact
		}, []string{policyDiffers}},
		"it warns": {func(_ *policy, b *binding) {
			b.Spec.ValidationActions = []admissionv1.ValidationAction{admissionv1.Warn}
		}, []string{bindingDiffers}},
		"bound somewhere": {func(_ *policy, b *binding) {
			b.Spec.MatchResources = &admissionv1.MatchResources{}
		}, []string{bindingDiffers}},
		"another policy": {func(_ *policy, b *binding) {
			b.Spec.PolicyName = "other"
		}, []string{bindingDiffers}},
		"under other names": {func(p *policy, b *binding) {
			p.Name, b.Name = "other", "other"
		}, []string{
			"ValidatingAdmissionPolicy mayfly-decisions is missing",
			"ValidatingAdmissionPolicyBinding mayfly-decisions is missing",
		}},
	} {
		has := parsed(t)
		row.change(the[*policy](t, has, decisions), the[*binding](t, has, decisions))
		got, err := Check(t.Context(), server(t, interceptor.Funcs{}, has...), parsed(t))
		if err != nil || !slices.Equal(got, row.want) {
			t.Errorf("%s: %q (%v), want %q", name, got, err, row.want)
		}
	}
	if got, err := Check(t.Context(), server(t, interceptor.Funcs{}), parsed(t)); err != nil || len(got) != len(parsed(t)) {
		t.Errorf("without any: %q (%v)", got, err)
	}
}

func TestWhatCanNotBeRead(t *testing.T) {
	no := errors.New("no")
	api := server(t, interceptor.Funcs{Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
		return no
	}})
	if got, err := Check(t.Context(), api, parsed(t)); !errors.Is(err, no) || got != nil {
		t.Errorf("%q (%v)", got, err)
	}
	for _, text := range []string{
		"{", "kind: ConfigMap\napiVersion: v1\nmetadata: {name: x}",
		"apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nspecs: {}",
	} {
		if got, err := Parse(text); err == nil || !strings.HasPrefix(err.Error(), "read admission policies: ") {
			t.Errorf("%s: %v (%v)", text, got, err)
		}
	}
}

func server(t *testing.T, calls interceptor.Funcs, has ...client.Object) client.Reader {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := admissionv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(has...).WithInterceptorFuncs(calls).Build()
}
