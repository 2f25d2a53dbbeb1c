// Package rights is who may approve CertificateRequests, by the RBAC objects and the admission policies of a cluster.
//
// cert-manager takes an approval from whoever has the verb approve on the signer, and may write the status of the request (cert-manager
// internal/webhook/admission/certificaterequest/approval). One that may is one too many where requests are made by pods, which ask for what they like.
package rights

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/component-helpers/auth/rbac/validation"
)

// Objects are the RBAC objects of a cluster. What another authorizer than RBAC grants is not in them.
type Objects struct {
	ClusterRoles        []rbacv1.ClusterRole
	Roles               []rbacv1.Role
	ClusterRoleBindings []rbacv1.ClusterRoleBinding
	RoleBindings        []rbacv1.RoleBinding
}

// An Approver is a user or a group that may approve requests.
type Approver struct {
	Subject       string   // "User system:serviceaccount:cert-manager:cert-manager".
	Signers       []string // Those for which it may: "issuers.cert-manager.io/*"; "*": all.
	Namespaces    []string // Those in which it may; "*": all.
	By            []string // The bindings that give it the verb approve: "ClusterRoleBinding cert-manager-approve".
	Administrator bool     // It has every right, that to change any of this included.
}

// Approvers are all that may approve, by their subjects.
func (o Objects) Approvers() (all []Approver) {
	grants := o.grants()
	for _, subject := range slices.SortedFunc(maps.Keys(grants), func(a, b rbacv1.Subject) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name))
	}) {
		var own []grant
		for _, s := range is(subject) {
			own = append(own, grants[s]...)
		}
		if a := approver(own); len(a.Signers) > 0 && len(a.Namespaces) > 0 {
			a.Subject = subject.Kind + " " + subject.Name
			all = append(all, a)
		}
	}
	return all
}

// A grant is what a binding gives.
type grant struct {
	by        string
	namespace string // Empty: all of them, and what has none.
	rules     []rbacv1.PolicyRule
}

// grants are those of each user and group.
func (o Objects) grants() map[rbacv1.Subject][]grant {
	all := map[rbacv1.Subject][]grant{}
	give := func(subjects []rbacv1.Subject, namespace string, g grant) {
		for _, s := range subjects {
			s = plain(s, namespace)
			all[s] = append(all[s], g)
		}
	}
	for _, b := range o.ClusterRoleBindings {
		give(b.Subjects, "", grant{by: "ClusterRoleBinding " + b.Name, rules: o.rules(b.RoleRef, "")})
	}
	for _, b := range o.RoleBindings {
		give(b.Subjects, b.Namespace, grant{"RoleBinding " + b.Namespace + "/" + b.Name, b.Namespace, o.rules(b.RoleRef, b.Namespace)})
	}
	return all
}

// rules are a role's; none of one that is not there.
func (o Objects) rules(of rbacv1.RoleRef, namespace string) []rbacv1.PolicyRule {
	if of.Kind == "ClusterRole" {
		i := slices.IndexFunc(o.ClusterRoles, func(r rbacv1.ClusterRole) bool { return r.Name == of.Name })
		if i < 0 {
			return nil
		}
		return o.ClusterRoles[i].Rules
	}
	i := slices.IndexFunc(o.Roles, func(r rbacv1.Role) bool { return r.Name == of.Name && r.Namespace == namespace })
	if i < 0 {
		return nil
	}
	return o.Roles[i].Rules
}

// accounts is how the names of service accounts, and of their groups, begin (k8s.io/apiserver pkg/authentication/serviceaccount).
const accounts = "system:serviceaccount"

// plain is a subject as the API server knows it: a service account is a user.
func plain(s rbacv1.Subject, namespace string) rbacv1.Subject {
	if s.Kind == rbacv1.ServiceAccountKind {
		return rbacv1.Subject{Kind: rbacv1.UserKind, Name: accounts + ":" + cmp.Or(s.Namespace, namespace) + ":" + s.Name}
	}
	return rbacv1.Subject{Kind: s.Kind, Name: s.Name}
}

// is what the subject is and what it belongs to, as far as that is known.
func is(s rbacv1.Subject) []rbacv1.Subject {
	all := []rbacv1.Subject{s}
	belongs := func(group string) {
		if g := (rbacv1.Subject{Kind: rbacv1.GroupKind, Name: group}); g != s {
			all = append(all, g)
		}
	}
	if s.Name != "system:anonymous" && s.Name != "system:unauthenticated" {
		belongs("system:authenticated")
	}
	if name, ok := strings.CutPrefix(s.Name, accounts+":"); ok && s.Kind == rbacv1.UserKind {
		namespace, _, _ := strings.Cut(name, ":")
		belongs(accounts + "s")
		belongs(accounts + "s:" + namespace)
	}
	return all
}

const group = "cert-manager.io"

// approver is what one may who has the grants.
func approver(grants []grant) (a Approver) {
	for _, g := range grants {
		for _, rule := range g.rules {
			// The webhook asks for signers without a namespace.
			if g.namespace == "" && may(rule, group, "signers", "approve") {
				a.By = append(a.By, g.by)
				a.Signers = append(a.Signers, names(rule)...)
			}
			if may(rule, group, "certificaterequests/status", "update") || may(rule, group, "certificaterequests/status", "patch") {
				a.Namespaces = append(a.Namespaces, cmp.Or(g.namespace, "*"))
			}
			a.Administrator = a.Administrator || g.namespace == "" && len(rule.ResourceNames) == 0 && may(rule, "*", "*", "*")
		}
	}
	a.By, a.Signers, a.Namespaces = set(a.By), set(a.Signers), set(a.Namespaces)
	return a
}

// may reports whether the rule gives a right, to some objects at least.
func may(rule rbacv1.PolicyRule, group, resource, verb string) bool {
	rule.ResourceNames = nil
	covers, _ := validation.Covers([]rbacv1.PolicyRule{rule}, []rbacv1.PolicyRule{{APIGroups: []string{group}, Resources: []string{resource}, Verbs: []string{verb}}})
	return covers
}

func names(rule rbacv1.PolicyRule) []string {
	if len(rule.ResourceNames) == 0 {
		return []string{"*"}
	}
	return rule.ResourceNames
}

// set is the list without repetition; only what stands for all, if it does.
func set(list []string) []string {
	if slices.Contains(list, "*") {
		return []string{"*"}
	}
	return slices.Compact(slices.Sorted(slices.Values(list)))
}
