package rights

import (
	"context"
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Read reads the RBAC objects.
func Read(ctx context.Context, from client.Reader) (o Objects, err error) {
	var (
		clusterRoles    rbacv1.ClusterRoleList
		roles           rbacv1.RoleList
		clusterBindings rbacv1.ClusterRoleBindingList
		bindings        rbacv1.RoleBindingList
	)
	for _, list := range []client.ObjectList{&clusterRoles, &roles, &clusterBindings, &bindings} {
		if err := from.List(ctx, list); err != nil {
			return Objects{}, fmt.Errorf("read the roles and their bindings: %w", err)
		}
	}
	return Objects{clusterRoles.Items, roles.Items, clusterBindings.Items, bindings.Items}, nil
}

// Policy keeps everyone but the controller from deciding on what pods ask for themselves (manifests/modes/pod/policies.yaml).
const Policy = "mayfly-pod-decisions"

// Kept reports whether the cluster has the policy, in force everywhere and for this controller. It does not read the policy's conditions.
func Kept(ctx context.Context, from client.Reader, controller string) (bool, error) {
	var policy admissionv1.ValidatingAdmissionPolicy
	if err := from.Get(ctx, client.ObjectKey{Name: Policy}, &policy); err != nil {
		return false, absent(err, "policy")
	}
	var binding admissionv1.ValidatingAdmissionPolicyBinding
	if err := from.Get(ctx, client.ObjectKey{Name: Policy}, &binding); err != nil {
		return false, absent(err, "binding")
	}
	return kept(policy, binding, controller), nil
}

func absent(err error, what string) error {
	if err = client.IgnoreNotFound(err); err != nil {
		return fmt.Errorf("read the %s %s: %w", what, Policy, err)
	}
	return nil
}

func kept(p admissionv1.ValidatingAdmissionPolicy, b admissionv1.ValidatingAdmissionPolicyBinding, controller string) bool {
	fails := p.Spec.FailurePolicy == nil || *p.Spec.FailurePolicy == admissionv1.Fail
	denies := b.Spec.PolicyName == p.Name && slices.Contains(b.Spec.ValidationActions, admissionv1.Deny) && b.Spec.MatchResources == nil
	return fails && denies && slices.ContainsFunc(p.Spec.Validations, func(v admissionv1.Validation) bool {
		return strings.Contains(v.Expression, "'"+controller+"'")
	})
}
