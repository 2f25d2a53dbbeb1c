package manifests_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/cel/environment"
)

// A policy is one that is compiled as the API server does (k8s.io/apiserver pkg/admission/plugin/policy/validating, compilePolicy).
type policy struct {
	*admissionv1.ValidatingAdmissionPolicy
	validator validating.Validator
}

// compiled are all policies of Mayfly.
func compiled(t *testing.T) (all []policy) {
	t.Helper()
	for _, p := range each[*admissionv1.ValidatingAdmissionPolicy](append(objects(t, "controller/policies.yaml"), objects(t, podCertificates+"policies.yaml")...)) {
		all = append(all, policy{p, compile(t, p)})
	}
	return all
}

func compile(t *testing.T, p *admissionv1.ValidatingAdmissionPolicy) validating.Validator {
	t.Helper()
	compiler, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		t.Fatal(err)
	}
	has := cel.OptionalVariableDeclarations{HasAuthorizer: true}
	var variables []cel.NamedExpressionAccessor
	for _, v := range p.Spec.Variables {
		variables = append(variables, &validating.Variable{Name: v.Name, Expression: v.Expression})
	}
	compiler.CompileAndStoreVariables(variables, has, environment.StoredExpressions)
	var conditions, validations, messages []cel.ExpressionAccessor
	for i := range p.Spec.MatchConditions {
		conditions = append(conditions, (*matchconditions.MatchCondition)(&p.Spec.MatchConditions[i]))
	}
	for _, v := range p.Spec.Validations {
		validations = append(validations, &validating.ValidationCondition{Expression: v.Expression, Message: v.Message, Reason: v.Reason})
		var message cel.ExpressionAccessor
		if v.MessageExpression != "" {
			message = &validating.MessageExpressionCondition{MessageExpression: v.MessageExpression}
		}
		messages = append(messages, message)
	}
	matcher := matchconditions.NewMatcher(compiler.CompileCondition(conditions, has, environment.StoredExpressions), p.Spec.FailurePolicy, "policy", "validate", p.Name)
	return validating.NewValidator(
		compiler.CompileCondition(validations, has, environment.StoredExpressions), matcher, compiler.CompileCondition(nil, has, environment.StoredExpressions),
		compiler.CompileCondition(messages, cel.OptionalVariableDeclarations{}, environment.StoredExpressions), p.Spec.FailurePolicy, nil)
}

// A call is one to the API server.
type call struct {
	operation     admission.Operation
	resource      schema.GroupVersionResource
	subresource   string
	object, old   runtime.Object
	who           *user.DefaultInfo
	writesAnswers bool // The user may update the status of requests.
}

// Authorize implements [authorizer.Authorizer].
func (c call) Authorize(_ context.Context, of authorizer.Attributes) (authorizer.Decision, string, error) {
	right := strings.Join([]string{of.GetUser().GetName(), of.GetVerb(), of.GetAPIGroup(), of.GetResource(), of.GetSubresource(), of.GetNamespace()}, " ")
	if c.writesAnswers && right == c.who.Name+" update cert-manager.io certificaterequests status shop" {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

// denials are the messages of the policies that are against the call, with the policies' names.
func (c call) denials(t *testing.T, all []policy) (denials []string) {
	t.Helper()
	kind := c.object
	if kind == nil {
		kind = c.old
	}
	gvk := kind.GetObjectKind().GroupVersionKind()
	object, old := plain(t, c.object), plain(t, c.old)
	attributes := &admission.VersionedAttributes{
		Attributes:    admission.NewAttributesRecord(object, old, gvk, "shop", "x", c.resource, c.subresource, c.operation, &metav1.CreateOptions{}, false, c.who),
		VersionedKind: gvk,
	}
	if object != nil {
		attributes.VersionedObject = admission.NewLazyObject(object)
	}
	if old != nil {
		attributes.VersionedOldObject = admission.NewLazyObject(old)
	}
	for _, p := range all {
		if !c.concerns(p) {
			continue
		}
		result := p.validator.Validate(t.Context(), c.resource, attributes, nil, nil, celconfig.RuntimeCELCostBudget, authorizer.UnconditionalAuthorizer(c))
		for _, d := range result.Decisions {
			if d.Action != validating.ActionAdmit {
				denials = append(denials, p.Name+": "+d.Message)
			}
		}
	}
	return denials
}

// concerns reports whether a policy has a rule for such calls.
func (c call) concerns(p policy) bool {
	resource := strings.TrimSuffix(c.resource.Resource+"/"+c.subresource, "/")
	return slices.ContainsFunc(p.Spec.MatchConstraints.ResourceRules, func(r admissionv1.NamedRuleWithOperations) bool {
		return slices.Contains(r.APIGroups, c.resource.Group) && slices.Contains(r.Resources, resource) &&
			slices.Contains(r.Operations, admissionv1.OperationType(c.operation))
	})
}

// plain is an object as the API server gives it to expressions; nil for none.
func plain(t *testing.T, object runtime.Object) runtime.Object {
	t.Helper()
	if object == nil {
		return nil
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		t.Fatal(err)
	}
	return &unstructured.Unstructured{Object: content}
}
