package manifests_test

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// TestKeysAreKept: who leaves the mode, or removes Mayfly, deletes the objects of other files than that of the namespace
// in which the CAs' keys are.
func TestKeysAreKept(t *testing.T) {
	kept := the[*corev1.Namespace](t, objects(t, "authority/*.yaml")).Name
	for _, files := range []string{"*.yaml", "controller/*.yaml", "modes/*/*.yaml", "options/*.yaml", "options/*/*.yaml"} {
		for _, n := range each[*corev1.Namespace](objects(t, files)) {
			if n.Name == kept {
				t.Errorf("%s has namespace %s", files, kept)
			}
		}
	}
}

// The rights to have CAs are the controller's, and let it speak for no signer but Mayfly's. That none is missing is tested with a real API server, in test/cluster.
func TestAuthority(t *testing.T) {
	all, account := objects(t, "modes/pod-certificate/authority.yaml"), the[*corev1.ServiceAccount](t, objects(t, controller))
	namespace := the[*corev1.Namespace](t, objects(t, "authority/*.yaml")).Name
	if namespace == account.Namespace {
		t.Errorf("namespace %s is that of the node plugin", namespace)
	}
	want := []rbacv1.Subject{{Kind: "ServiceAccount", Name: account.Name, Namespace: account.Namespace}}
	role, cluster := the[*rbacv1.Role](t, all), the[*rbacv1.ClusterRole](t, all)
	binding, clusterBinding := the[*rbacv1.RoleBinding](t, all), the[*rbacv1.ClusterRoleBinding](t, all)
	if !slices.Equal(binding.Subjects, want) || !slices.Equal(clusterBinding.Subjects, want) || binding.RoleRef.Name != role.Name || clusterBinding.RoleRef.Name != cluster.Name ||
		role.Namespace != namespace || binding.Namespace != namespace {
		t.Errorf("%v has %s, %v has %s", binding.Subjects, binding.RoleRef.Name, clusterBinding.Subjects, clusterBinding.RoleRef.Name)
	}
	var rules []string
	for _, r := range append(role.Rules, cluster.Rules...) {
		rules = append(rules, strings.Join(r.Resources, ",")+" "+strings.Join(r.ResourceNames, ",")+": "+strings.Join(r.Verbs, ","))
	}
	if got := strings.Join(rules, "\n"); got != `secrets : list,watch
secrets mayfly-ca: get,update
secrets : create
leases : create
leases mayfly-controller: get,update
events : create
clustertrustbundles : list,watch,create,update
signers csi.mayfly.dev/*: attest` {
		t.Error(got)
	}
}
