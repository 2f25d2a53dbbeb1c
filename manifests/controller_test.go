package manifests_test

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
)

const controller = "controller/*.yaml"

func TestController(t *testing.T) {
	text, err := os.ReadFile("../docs/controller.md")
	if err != nil {
		t.Fatal(err)
	}
	all := objects(t, controller)
	account, deployment, budget := the[*corev1.ServiceAccount](t, all), the[*appsv1.Deployment](t, all), the[*policyv1.PodDisruptionBudget](t, all)
	if namespace := the[*corev1.Namespace](t, objects(t, "*.yaml")).Name; account.Namespace != namespace || deployment.Namespace != namespace || budget.Namespace != namespace {
		t.Errorf("namespaces %s, %s and %s", account.Namespace, deployment.Namespace, budget.Namespace)
	}
	spec := deployment.Spec.Template.Spec
	if *deployment.Spec.Replicas < 2 || spec.ServiceAccountName != account.Name {
		t.Errorf("%d replicas run as %s", *deployment.Spec.Replicas, spec.ServiceAccountName)
	}
	for _, selector := range []map[string]string{budget.Spec.Selector.MatchLabels, deployment.Spec.Selector.MatchLabels, spec.TopologySpreadConstraints[0].LabelSelector.MatchLabels} {
		for key, value := range selector {
			if deployment.Spec.Template.Labels[key] != value {
				t.Errorf("%s=%s is no label of the pods", key, value)
			}
		}
	}
	for _, env := range spec.Containers[0].Env {
		if env.Name != goMemoryLimit && !strings.Contains(string(text), "| `"+env.Name+"` |") {
			t.Errorf("%s is no flag's variable", env.Name)
		}
	}
	if strings.Contains(spec.Containers[0].Image, "/") {
		t.Errorf("image %s has a registry", spec.Containers[0].Image)
	}
}

// goMemoryLimit is the variable of Go's (https://pkg.go.dev/runtime).
const goMemoryLimit = "GOMEMLIMIT"

// Go's garbage collector keeps to nine tenths of the controller's memory limit: what it does not see is the rest.
func TestTheControllersMemory(t *testing.T) {
	container := the[*appsv1.Deployment](t, objects(t, controller)).Spec.Template.Spec.Containers[0]
	limit := container.Resources.Limits.Memory().Value()
	for _, env := range container.Env {
		if env.Name == goMemoryLimit {
			of, err := resource.ParseQuantity(strings.TrimSuffix(env.Value, "B"))
			if part := float64(of.Value()) / float64(limit); err != nil || part < 0.88 || part > 0.92 {
				t.Errorf("%s is %s, and the limit %d bytes (%v)", env.Name, env.Value, limit, err)
			}
			return
		}
	}
	t.Error("Go does not know its limit")
}

// The controller prefers control-plane nodes and can run elsewhere; with the option it can't.
func TestWhereTheControllerRuns(t *testing.T) {
	const label = "node-role.kubernetes.io/control-plane"
	deployment := the[*appsv1.Deployment](t, objects(t, controller))
	affinity := deployment.Spec.Template.Spec.Affinity.NodeAffinity
	preferred := affinity.PreferredDuringSchedulingIgnoredDuringExecution
	wanted := []corev1.NodeSelectorRequirement{{Key: label, Operator: corev1.NodeSelectorOpExists}}
	if len(preferred) != 1 || preferred[0].Weight != 100 || !reflect.DeepEqual(preferred[0].Preference.MatchExpressions, wanted) ||
		affinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		t.Errorf("%+v", affinity)
	}
	tolerated := []corev1.Toleration{
		{Key: "csi.mayfly.dev/not-ready", Operator: corev1.TolerationOpExists}, // Nobody else takes that taint away.
		{Key: label, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
	}
	if got := deployment.Spec.Template.Spec.Tolerations; !slices.Equal(got, tolerated) {
		t.Errorf("%+v", got)
	}
	patched := patch(t, deployment, "options/control-plane.yaml")
	required := patched.Spec.Template.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	if required == nil || len(required.NodeSelectorTerms) != 1 || !reflect.DeepEqual(required.NodeSelectorTerms[0].MatchExpressions, wanted) {
		t.Errorf("%+v", required)
	}
	patched.Spec.Template.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = nil
	if !equality.Semantic.DeepEqual(patched, deployment) {
		t.Error("the option changes something else")
	}
}

// patch is the deployment after kubectl patch --patch-file.
func patch(t *testing.T, deployment *appsv1.Deployment, file string) *appsv1.Deployment {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	change, err := yaml.ToJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	before, err := json.Marshal(deployment)
	if err != nil {
		t.Fatal(err)
	}
	after, err := strategicpatch.StrategicMergePatch(before, change, appsv1.Deployment{})
	if err != nil {
		t.Fatal(err)
	}
	patched := &appsv1.Deployment{}
	if err := json.Unmarshal(after, patched); err != nil {
		t.Fatal(err)
	}
	return patched
}

// TestControllersRights: no right is there that the code does not use. That none is missing is tested with a real API server, in test/e2e.
func TestControllersRights(t *testing.T) {
	all := objects(t, controller)
	role, binding, account := the[*rbacv1.ClusterRole](t, all), the[*rbacv1.ClusterRoleBinding](t, all), the[*corev1.ServiceAccount](t, all)
	rights(t, role, map[string][]string{
		"cert-manager.io/certificaterequests":        {"list", "watch"},
		"cert-manager.io/certificaterequests/status": {"patch"},
		"cert-manager.io/signers":                    {"approve"},
		"csi.mayfly.dev/certificatepolicies":         {"list", "watch"},
		"csi.mayfly.dev/certificatepolicies/status":  {"patch"},
		"/serviceaccounts":                           {"list"},
		"/pods":                                      {"get"},
		"/nodes":                                     {"get"},
		"events.k8s.io/events":                       {"create", "patch"},
	})
	if want := []rbacv1.Subject{{Kind: "ServiceAccount", Name: account.Name, Namespace: account.Namespace}}; !slices.Equal(binding.Subjects, want) || binding.RoleRef.Name != role.Name {
		t.Errorf("%s is bound to %v", binding.RoleRef.Name, binding.Subjects)
	}
}

// The CRD is of the kind that the controller reads, comes before what else kubectl applies, and knows the key usages that volumes know.
func TestPolicyCRD(t *testing.T) {
	crd, ok := objects(t, controller)[0].(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		t.Fatal("the CRD does not come first")
	}
	names, version := crd.Spec.Names, crd.Spec.Versions[0]
	if names.Kind != v1alpha1.Kind || crd.Spec.Group != v1alpha1.GroupVersion().Group || version.Name != v1alpha1.GroupVersion().Version || crd.Spec.Scope != apiextensionsv1.ClusterScoped {
		t.Errorf("%s %s/%s, %s", names.Kind, crd.Spec.Group, version.Name, crd.Spec.Scope)
	}
	var usages []string
	for _, value := range version.Schema.OpenAPIV3Schema.Properties["spec"].Properties["limits"].Properties["usages"].Items.Schema.Enum {
		usages = append(usages, strings.Trim(string(value.Raw), `"`))
	}
	if !slices.Equal(usages, signer.Usages()) {
		t.Errorf("usages %q, and signer has %q", usages, signer.Usages())
	}
}

// The policies are in force, and speak of the service accounts that there are.
func TestAdmissionPolicies(t *testing.T) {
	all := objects(t, controller)
	plugin := "system:serviceaccount:mayfly-system:" + the[*corev1.ServiceAccount](t, objects(t, "*.yaml")).Name
	approver := "system:serviceaccount:mayfly-system:" + the[*corev1.ServiceAccount](t, all).Name
	var names []string
	bound := bindings(t, all)
	for _, p := range each[*admissionv1.ValidatingAdmissionPolicy](all) {
		names = append(names, p.Name)
		about := plugin
		switch p.Name {
		case "mayfly-node-ranges":
			about = "system:nodes"
		case "mayfly-startup-taint":
			about = approver
		}
		if *p.Spec.FailurePolicy != admissionv1.Fail || len(p.Spec.MatchConditions) != 1 || !strings.Contains(p.Spec.MatchConditions[0].Expression, "'"+about+"'") {
			t.Errorf("%s does not fail, or is not about %s", p.Name, about)
		}
	}
	if !slices.Equal(names, bound) || !slices.Equal(names, []string{"mayfly-decisions", "mayfly-requests", "mayfly-changes", "mayfly-deletions", "mayfly-events", "mayfly-node-ranges", "mayfly-startup-taint"}) {
		t.Errorf("there are %v, and bound are %v", names, bound)
	}
	if expression := each[*admissionv1.ValidatingAdmissionPolicy](all)[0].Spec.Validations[0].Expression; !strings.Contains(expression, "'"+approver+"'") {
		t.Errorf("%s may not decide: %s", approver, expression)
	}
}

// bindings are the policies that are bound, which must be everywhere and deny.
func bindings(t *testing.T, all []runtime.Object) (bound []string) {
	t.Helper()
	for _, b := range each[*admissionv1.ValidatingAdmissionPolicyBinding](all) {
		if !slices.Equal(b.Spec.ValidationActions, []admissionv1.ValidationAction{admissionv1.Deny}) || b.Spec.MatchResources != nil {
			t.Errorf("%s does not deny, or not everywhere", b.Name)
		}
		bound = append(bound, b.Spec.PolicyName)
	}
	return bound
}
