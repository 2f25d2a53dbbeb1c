package rights

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A cluster is a few words: a role by its rules, a binding by its role and subjects.
type cluster struct{ Objects }

// role is "approve signers cert-manager.io issuers.cert-manager.io/*": verbs, resources, groups and names.
func (c *cluster) role(name string, rules ...string) *cluster {
	r := rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, text := range rules {
		words := strings.Fields(text)
		rule := rbacv1.PolicyRule{Verbs: strings.Split(words[0], ","), Resources: strings.Split(words[1], ","), APIGroups: strings.Split(words[2], ",")}
		if len(words) > 3 {
			rule.ResourceNames = words[3:]
		}
		r.Rules = append(r.Rules, rule)
	}
	c.ClusterRoles = append(c.ClusterRoles, r)
	return c
}

func subjects(texts []string) (all []rbacv1.Subject) {
	for _, text := range texts {
		kind, name, _ := strings.Cut(text, " ")
		s := rbacv1.Subject{Kind: kind, Name: name}
		if namespace, name, ok := strings.Cut(name, "/"); ok {
			s.Namespace, s.Name = namespace, name
		}
		all = append(all, s)
	}
	return all
}

func (c *cluster) everywhere(role string, to ...string) *cluster {
	c.ClusterRoleBindings = append(c.ClusterRoleBindings, rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: role}, Subjects: subjects(to),
	})
	return c
}

func (c *cluster) in(namespace, kind, role string, to ...string) *cluster {
	c.RoleBindings = append(c.RoleBindings, rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: role}, RoleRef: rbacv1.RoleRef{Kind: kind, Name: role}, Subjects: subjects(to),
	})
	return c
}

func TestApprovers(t *testing.T) {
	known := func() *cluster {
		c := new(cluster).role("approve", "approve signers cert-manager.io").role("status", "update,patch certificaterequests,certificaterequests/status cert-manager.io").
			role("some", "approve signers cert-manager.io issuers.cert-manager.io/shop.ca clusterissuers.cert-manager.io/*").role("root", "* * *").
			role("read", "get,list,watch certificaterequests,certificaterequests/status cert-manager.io", "approve signers certificates.k8s.io").
			role("every-status", "update */status *")
		c.Roles = []rbacv1.Role{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "patch"}, Rules: []rbacv1.PolicyRule{{
			Verbs: []string{"patch"}, Resources: []string{"certificaterequests/status"}, APIGroups: []string{"*"},
		}}}}
		return c
	}
	const bob, manager = "User bob", "ServiceAccount cert-manager/cert-manager"
	for _, row := range []struct {
		name string
		o    *cluster
		want []string
	}{
		{"nobody", known(), nil},
		{"cert-manager as its chart has it", known().everywhere("approve", manager).everywhere("status", manager), []string{"User system:serviceaccount:cert-manager:cert-manager * * ClusterRoleBinding approve false"}},
		{"cert-manager without its approver", known().everywhere("status", manager), nil},
		{"one who can't write the status", known().everywhere("approve", bob), nil},
		{"other rights", known().everywhere("read", bob).everywhere("status", bob), nil},
		{"some signers, in a namespace", known().everywhere("some", bob).in("shop", "ClusterRole", "status", bob), []string{"User bob clusterissuers.cert-manager.io/*,issuers.cert-manager.io/shop.ca shop ClusterRoleBinding some false"}},
		{"by a Role", known().everywhere("approve", bob).in("shop", "Role", "patch", bob), []string{"User bob * shop ClusterRoleBinding approve false"}},
		{"by the Role of another namespace", known().everywhere("approve", bob).in("other", "Role", "patch", bob), nil},
		{"a signer has no namespace", known().in("shop", "ClusterRole", "approve", bob).everywhere("status", bob), nil},
		{"every status", known().everywhere("approve", bob).everywhere("every-status", bob), []string{"User bob * * ClusterRoleBinding approve false"}},
		{"an administrator", known().everywhere("root", "Group system:masters"), []string{"Group system:masters * * ClusterRoleBinding root true"}},
		{"an administrator of a namespace", known().in("shop", "ClusterRole", "root", bob), nil},
		{"by the account's group", known().everywhere("approve", "Group system:serviceaccounts:cert-manager").everywhere("status", manager), []string{"User system:serviceaccount:cert-manager:cert-manager * * ClusterRoleBinding approve false"}},
		{"by the group of all accounts", known().everywhere("approve", "Group system:serviceaccounts").everywhere("status", manager), []string{"User system:serviceaccount:cert-manager:cert-manager * * ClusterRoleBinding approve false"}},
		{"by the group of all users", known().everywhere("approve", "Group system:authenticated").everywhere("status", bob), []string{"User bob * * ClusterRoleBinding approve false"}},
		{"an account by its user name", known().everywhere("approve", "User system:serviceaccount:cert-manager:cert-manager").everywhere("status", manager), []string{"User system:serviceaccount:cert-manager:cert-manager * * ClusterRoleBinding approve false"}},
		{"an account of the binding's namespace", known().everywhere("approve", "User system:serviceaccount:shop:default").in("shop", "Role", "patch", "ServiceAccount default"), []string{"User system:serviceaccount:shop:default * shop ClusterRoleBinding approve false"}},
		{"a role that is not there", known().everywhere("gone", bob).in("shop", "Role", "gone", bob), nil},
	} {
		var got []string
		for _, a := range row.o.Approvers() {
			got = append(got, fmt.Sprint(a.Subject, " ", strings.Join(a.Signers, ","), " ", strings.Join(a.Namespaces, ","), " ", strings.Join(a.By, ","), " ", a.Administrator))
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%s:\n got %q\nwant %q", row.name, got, row.want)
		}
	}
}

func TestKept(t *testing.T) {
	const us = "system:serviceaccount:mayfly-system:mayfly-controller"
	ignore := admissionv1.Ignore
	for name, row := range map[string]struct {
		change func(*admissionv1.ValidatingAdmissionPolicy, *admissionv1.ValidatingAdmissionPolicyBinding)
		want   bool
	}{
		"as it should be": {func(*admissionv1.ValidatingAdmissionPolicy, *admissionv1.ValidatingAdmissionPolicyBinding) {}, true},
		"it lets errors by": {func(p *admissionv1.ValidatingAdmissionPolicy, _ *admissionv1.ValidatingAdmissionPolicyBinding) {
			p.Spec.FailurePolicy = &ignore
		}, false},
		"it warns": {func(_ *admissionv1.ValidatingAdmissionPolicy, b *admissionv1.ValidatingAdmissionPolicyBinding) {
			b.Spec.ValidationActions = []admissionv1.ValidationAction{admissionv1.Warn}
		}, false},
		"somewhere": {func(_ *admissionv1.ValidatingAdmissionPolicy, b *admissionv1.ValidatingAdmissionPolicyBinding) {
			b.Spec.MatchResources = &admissionv1.MatchResources{}
		}, false},
		"another policy": {func(_ *admissionv1.ValidatingAdmissionPolicy, b *admissionv1.ValidatingAdmissionPolicyBinding) {
			b.Spec.PolicyName = "other"
		}, false},
		"another controller": {func(p *admissionv1.ValidatingAdmissionPolicy, _ *admissionv1.ValidatingAdmissionPolicyBinding) {
			p.Spec.Validations[0].Expression = "request.userInfo.username == 'bob'"
		}, false},
	} {
		p := admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: Policy}, Spec: admissionv1.ValidatingAdmissionPolicySpec{
			Validations: []admissionv1.Validation{{Expression: "request.userInfo.username == '" + us + "'"}},
		}}
		b := admissionv1.ValidatingAdmissionPolicyBinding{Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: Policy, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}}}
		row.change(&p, &b)
		if got := kept(p, b, us); got != row.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
