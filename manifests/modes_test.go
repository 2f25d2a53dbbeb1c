package manifests_test

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/mayfly-csi/mayfly/signer"
)

const (
	podCertificates = "modes/pod-certificate/"
	tokenRequests   = "options/token-request/"
)

// TestRightsOfPodCertificates: no right is there that the code does not use. That none is missing is tested with a real API server, in test/cluster.
func TestRightsOfPodCertificates(t *testing.T) {
	const as = "impersonate-on:associated-node:"
	roles := each[*rbacv1.ClusterRole](objects(t, podCertificates+"node.yaml"))
	if len(roles) != 2 {
		t.Fatalf("%d roles", len(roles))
	}
	rights(t, roles[0], map[string][]string{
		"authentication.k8s.io/nodes":                {"impersonate:associated-node"},
		"certificates.k8s.io/podcertificaterequests": {as + "create", as + "list", as + "watch"},
		"/nodes":           {as + "get"},
		"/serviceaccounts": {as + "get"},
		"/pods":            {as + "list", as + "watch"},
		"certificates.k8s.io/clustertrustbundles": {"list", "watch"},
		"/events": {"create"},
	})
	rights(t, roles[1], map[string][]string{
		"certificates.k8s.io/" + strings.ReplaceAll(signer.PodCertificateSigner, "/", ":"): {"request-serviceaccounts-podcertificate-signer"},
	})
	bound := each[*rbacv1.ClusterRoleBinding](objects(t, podCertificates+"node.yaml"))
	if len(bound) != 2 {
		t.Fatalf("%d bindings", len(bound))
	}
	bindsThePlugin(t, bound[0], roles[0].Name)
	binding := bound[1]
	if want := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:nodes"}}; !slices.Equal(binding.Subjects, want) || binding.RoleRef.Name != roles[1].Name {
		t.Errorf("%s is bound to %v", binding.RoleRef.Name, binding.Subjects)
	}
}

func TestPoliciesOfPodCertificates(t *testing.T) {
	all := objects(t, podCertificates+"policies.yaml")
	account := the[*corev1.ServiceAccount](t, objects(t, controller))
	group, _, _ := strings.Cut(signer.PodCertificateSigner, "/")
	var names []string
	for _, p := range each[*admissionv1.ValidatingAdmissionPolicy](all) {
		names = append(names, p.Name)
		about := "'system:serviceaccount:" + account.Namespace + ":" + account.Name + "'"
		if p.Name == "mayfly-pod-certificates" {
			about = "'" + group + "/'"
		}
		if *p.Spec.FailurePolicy != admissionv1.Fail || len(p.Spec.MatchConditions) != 1 || !strings.Contains(p.Spec.MatchConditions[0].Expression, about) {
			t.Errorf("%s does not fail, or is not about %s", p.Name, about)
		}
	}
	if bound := bindings(t, all); !slices.Equal(names, bound) || !slices.Equal(names, []string{"mayfly-pod-certificates", "mayfly-pod-certificate-deletions", "mayfly-bundles"}) {
		t.Errorf("there are %v, and bound are %v", names, bound)
	}
}

// The option's CSIDriver object and ClusterRole differ from those that they replace in what the option is.
func TestTokenRequests(t *testing.T) {
	ours, asPod := the[*storagev1.CSIDriver](t, objects(t, "csidriver.yaml")), the[*storagev1.CSIDriver](t, objects(t, tokenRequests+"*.yaml"))
	if r := asPod.Spec.TokenRequests; len(r) != 1 || r[0].Audience != "" || !*asPod.Spec.RequiresRepublish || !*asPod.Spec.ServiceAccountTokenInSecrets {
		t.Errorf("%+v: the API server's token must come again and again, among the secrets", asPod.Spec)
	}
	spec := asPod.Spec.DeepCopy()
	spec.TokenRequests, spec.RequiresRepublish, spec.ServiceAccountTokenInSecrets = nil, nil, nil
	if !reflect.DeepEqual(*spec, ours.Spec) || !maps.Equal(asPod.Labels, ours.Labels) || asPod.Name != ours.Name {
		t.Error("the CSIDriver for token requests differs in more than them")
	}
	usual, role := the[*rbacv1.ClusterRole](t, objects(t, "rbac.yaml")), the[*rbacv1.ClusterRole](t, objects(t, tokenRequests+"rbac.yaml"))
	usual.Rules[0].Verbs = slices.DeleteFunc(usual.Rules[0].Verbs, func(verb string) bool { return verb == "create" })
	bindsThePlugin(t, the[*rbacv1.ClusterRoleBinding](t, objects(t, tokenRequests+"rbac.yaml")), role.Name)
	if !reflect.DeepEqual(usual.Rules, role.Rules) {
		t.Errorf("the node plugin's role differs in more than the right to create requests: %+v", role)
	}
	rights(t, the[*rbacv1.ClusterRole](t, objects(t, tokenRequests+"workloads.yaml")), map[string][]string{"cert-manager.io/certificaterequests": {"create"}})
}

// bindsThePlugin demands that the role is bound to the node plugin's account, as that of rbac.yaml is.
func bindsThePlugin(t *testing.T, binding *rbacv1.ClusterRoleBinding, role string) {
	t.Helper()
	ours := the[*rbacv1.ClusterRoleBinding](t, objects(t, "rbac.yaml"))
	if binding.RoleRef.Name != role || !slices.Equal(binding.Subjects, ours.Subjects) {
		t.Errorf("%s binds %s to %v, not %s to %v", binding.Name, binding.RoleRef.Name, binding.Subjects, role, ours.Subjects)
	}
}
