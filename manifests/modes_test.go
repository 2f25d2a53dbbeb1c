package manifests_test

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
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
	ours := the[*rbacv1.ClusterRole](t, objects(t, "*.yaml"))
	if len(roles) != 2 || roles[0].Name != ours.Name {
		t.Fatalf("%d roles, the first of which does not take the place of %s", len(roles), ours.Name)
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
	binding := the[*rbacv1.ClusterRoleBinding](t, objects(t, podCertificates+"node.yaml"))
	if want := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:nodes"}}; !slices.Equal(binding.Subjects, want) || binding.RoleRef.Name != roles[1].Name {
		t.Errorf("%s is bound to %v", binding.RoleRef.Name, binding.Subjects)
	}
}

func TestPolicyOfPodCertificates(t *testing.T) {
	all := objects(t, podCertificates+"policies.yaml")
	policy, binding := the[*admissionv1.ValidatingAdmissionPolicy](t, all), the[*admissionv1.ValidatingAdmissionPolicyBinding](t, all)
	group, _, _ := strings.Cut(signer.PodCertificateSigner, "/")
	if *policy.Spec.FailurePolicy != admissionv1.Fail || !strings.Contains(policy.Spec.MatchConditions[0].Expression, "'"+group+"/'") {
		t.Error("it does not fail, or is not about our signer")
	}
	if binding.Spec.PolicyName != policy.Name || !slices.Equal(binding.Spec.ValidationActions, []admissionv1.ValidationAction{admissionv1.Deny}) || binding.Spec.MatchResources != nil {
		t.Error("it does not deny, or not everywhere")
	}
}

// The option replaces the CSIDriver object and the node plugin's ClusterRole by such as differ in what it is.
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
	if !reflect.DeepEqual(usual, role) {
		t.Errorf("the node plugin's role differs in more than the right to create requests: %+v", role)
	}
	rights(t, the[*rbacv1.ClusterRole](t, objects(t, tokenRequests+"workloads.yaml")), map[string][]string{"cert-manager.io/certificaterequests": {"create"}})
}
