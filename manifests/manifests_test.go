// Package manifests_test holds the manifests to each other and to the driver.
package manifests_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmscheme "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned/scheme"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// objects are all documents of the files. A field that its kind does not have is an error.
func objects(t *testing.T, pattern string) (all []runtime.Object) {
	t.Helper()
	here := os.DirFS(".")
	files, err := fs.Glob(here, pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no files, %v", pattern, err)
	}
	for _, file := range files {
		text, err := fs.ReadFile(here, file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, decode(t, file, text)...)
	}
	return all
}

func decode(t *testing.T, file string, text []byte) (all []runtime.Object) {
	t.Helper()
	known := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(known), cmscheme.AddToScheme(known), apiextensionsv1.AddToScheme(known), v1alpha1.AddToScheme(known)); err != nil {
		t.Fatal(err)
	}
	decoder := serializer.NewCodecFactory(known, serializer.EnableStrict).UniversalDeserializer()
	for documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text))); ; {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, object)
	}
}

// the is the only object of its kind.
func the[T runtime.Object](t *testing.T, all []runtime.Object) (object T) {
	t.Helper()
	found := each[T](all)
	if len(found) != 1 {
		t.Fatalf("%d objects of type %T", len(found), object)
	}
	return found[0]
}

func each[T runtime.Object](all []runtime.Object) (found []T) {
	for _, o := range all {
		if object, ok := o.(T); ok {
			found = append(found, object)
		}
	}
	return found
}

// variables are the environment variables of the flags, with the flags' defaults. docs/reference.md has them by a test of cmd/mayfly.
func variables(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `--[a-z-]+` \\| `(MAYFLY_[A-Z_]+)` \\| `?([^`|]+?)`? \\|").FindAllStringSubmatch(string(text), -1) {
		found[row[1]] = row[2]
	}
	if len(found) == 0 {
		t.Fatal("docs/reference.md has no flags")
	}
	return found
}

func TestNames(t *testing.T) {
	all, flags := objects(t, "*.yaml"), variables(t)
	if got := the[*storagev1.CSIDriver](t, all).Name; got != flags["MAYFLY_DRIVER_NAME"] {
		t.Errorf("the CSIDriver is %s, the driver's default name %s", got, flags["MAYFLY_DRIVER_NAME"])
	}
	account := the[*corev1.ServiceAccount](t, all)
	plugin := the[*appsv1.DaemonSet](t, all)
	binding := the[*rbacv1.ClusterRoleBinding](t, all)
	namespace := the[*corev1.Namespace](t, all).Name
	if account.Namespace != namespace || plugin.Namespace != namespace {
		t.Errorf("namespaces: %s, %s and %s", namespace, account.Namespace, plugin.Namespace)
	}
	if got := plugin.Spec.Template.Spec.ServiceAccountName; got != account.Name {
		t.Errorf("the DaemonSet runs as %s, not %s", got, account.Name)
	}
	if want := []rbacv1.Subject{{Kind: "ServiceAccount", Name: account.Name, Namespace: namespace}}; !slices.Equal(binding.Subjects, want) {
		t.Errorf("bound to %v, not %v", binding.Subjects, want)
	}
	if got := the[*rbacv1.ClusterRole](t, all).Name; binding.RoleRef.Name != got {
		t.Errorf("%s is bound, not %s", binding.RoleRef.Name, got)
	}
}

// TestOrder: kubectl applies a directory's files by their names, and objects need their namespace.
func TestOrder(t *testing.T) {
	all := objects(t, "*.yaml")
	if _, ok := all[0].(*corev1.Namespace); !ok {
		t.Error("the namespace does not come first")
	}
	before[*corev1.ServiceAccount, *appsv1.DaemonSet](t, all)
	before[*corev1.ServiceAccount, *appsv1.Deployment](t, objects(t, controller))
}

// before demands that the object of the first kind comes before that of the second, which is not made without it.
func before[A, B runtime.Object](t *testing.T, all []runtime.Object) {
	t.Helper()
	index := func(is func(runtime.Object) bool) int { return slices.IndexFunc(all, is) }
	a := index(func(o runtime.Object) bool { _, ok := o.(A); return ok })
	b := index(func(o runtime.Object) bool { _, ok := o.(B); return ok })
	if a < 0 || a > b {
		t.Errorf("the %T is object %d, the %T object %d", *new(A), a, *new(B), b)
	}
}

// Pods of the classes that both workloads have need a quota of their namespace on GKE, which must be there before them.
func TestQuota(t *testing.T) {
	all := objects(t, "*.yaml")
	quota := the[*corev1.ResourceQuota](t, all)
	before[*corev1.ResourceQuota, *appsv1.DaemonSet](t, all)
	want := []corev1.ScopedResourceSelectorRequirement{{
		ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: corev1.ScopeSelectorOpIn,
		Values: []string{
			the[*appsv1.DaemonSet](t, all).Spec.Template.Spec.PriorityClassName,
			the[*appsv1.Deployment](t, objects(t, controller)).Spec.Template.Spec.PriorityClassName,
		},
	}}
	if pods := quota.Spec.Hard[corev1.ResourcePods]; quota.Namespace != the[*corev1.Namespace](t, all).Name || pods.Value() < 100_000 || len(quota.Spec.Hard) != 1 ||
		!reflect.DeepEqual(quota.Spec.ScopeSelector.MatchExpressions, want) {
		t.Errorf("%+v", quota)
	}
}

func TestCSIDriver(t *testing.T) {
	spec := the[*storagev1.CSIDriver](t, objects(t, "*.yaml")).Spec
	if !slices.Equal(spec.VolumeLifecycleModes, []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral}) {
		t.Errorf("modes %v", spec.VolumeLifecycleModes)
	}
	if spec.PodInfoOnMount == nil || !*spec.PodInfoOnMount || spec.AttachRequired == nil || *spec.AttachRequired {
		t.Error("podInfoOnMount is not true, or attachRequired not false")
	}
	if spec.RequiresRepublish != nil && *spec.RequiresRepublish {
		t.Error("requiresRepublish is true: the driver renews by itself")
	}
}

// TestRights: no right is there that the code does not use. That none is missing is tested with a real API server, in test/cluster.
func TestRights(t *testing.T) {
	rights(t, the[*rbacv1.ClusterRole](t, objects(t, "*.yaml")), map[string][]string{
		"cert-manager.io/certificaterequests":     {"create", "delete", "get", "watch"},
		"certificates.k8s.io/clustertrustbundles": {"list", "watch"},
		"/events": {"create"},
	})
	for option, want := range map[string]map[string][]string{
		"config-maps": {"/configmaps": {"list", "watch"}}, "read-pods": {"/pods": {"list", "watch"}},
		"startup-taint": {"storage.k8s.io/csinodes": {"list", "watch"}, "/nodes": {"patch"}},
	} {
		rights(t, the[*rbacv1.ClusterRole](t, objects(t, "options/"+option+".yaml")), want)
	}
}

func rights(t *testing.T, role *rbacv1.ClusterRole, want map[string][]string) {
	t.Helper()
	for _, rule := range role.Rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				if verbs := want[group+"/"+resource]; !slices.Equal(slices.Sorted(slices.Values(rule.Verbs)), verbs) {
					t.Errorf("%s/%s: verbs %v, want %v", group, resource, rule.Verbs, verbs)
				}
			}
		}
	}
}

func TestPlugin(t *testing.T) {
	plugin, flags := the[*appsv1.DaemonSet](t, objects(t, "*.yaml")), variables(t)
	pod := plugin.Spec.Template.Spec
	container := pod.Containers[0]
	if !slices.Equal(container.Args, []string{"node"}) {
		t.Errorf("arguments %q: flags are set by their variables", container.Args)
	}
	for _, env := range container.Env {
		if _, ok := flags[env.Name]; !ok {
			t.Errorf("%s is no flag's variable", env.Name)
		}
	}
	if !slices.ContainsFunc(container.Env, func(env corev1.EnvVar) bool {
		return env.Name == "MAYFLY_NODE_NAME" && env.ValueFrom.FieldRef.FieldPath == "spec.nodeName"
	}) {
		t.Error("the node's name is not told")
	}
	if surge := plugin.Spec.UpdateStrategy.RollingUpdate.MaxSurge; surge.IntValue() != 0 {
		t.Errorf("surge %v: the kubelet refuses a second instance", surge)
	}
	if strings.Contains(container.Image, "/") {
		t.Errorf("image %s has a registry", container.Image)
	}
}

// TestMounts: the driver sees of the kubelet's root what it needs and no more. It mounts in the pods' directories and in its own, where all of its CSI sockets lie
// by a test of cmd/mayfly.
func TestMounts(t *testing.T) {
	const bidirectional = corev1.MountPropagationBidirectional
	pod, root := the[*appsv1.DaemonSet](t, objects(t, "*.yaml")).Spec.Template.Spec, variables(t)["MAYFLY_KUBELET_ROOT"]
	want := map[string]corev1.MountPropagationMode{
		root + "/pods": bidirectional, root + "/plugins/" + spec.Driver: bidirectional, root + "/plugins_registry": "",
	}
	sources := map[string]string{}
	for _, v := range pod.Volumes {
		sources[v.Name] = v.HostPath.Path
	}
	got := map[string]corev1.MountPropagationMode{}
	for _, m := range pod.Containers[0].VolumeMounts {
		got[m.MountPath] = ""
		if m.MountPropagation != nil {
			got[m.MountPath] = *m.MountPropagation
		}
		if sources[m.Name] != m.MountPath || m.ReadOnly || m.SubPath != "" {
			t.Errorf("%s is %s on the node", m.MountPath, sources[m.Name])
		}
	}
	if !maps.Equal(got, want) || len(sources) != len(want) {
		t.Errorf("mounts %v, want %v", got, want)
	}
}

// TestProbes: the kubelet asks the address on which the driver says how it is, and seldom enough to cost nothing.
func TestProbes(t *testing.T) {
	container := the[*appsv1.DaemonSet](t, objects(t, "*.yaml")).Spec.Template.Spec.Containers[0]
	values := map[string]string{}
	for _, env := range container.Env {
		values[env.Name] = env.Value
	}
	ports := map[string]string{}
	for _, port := range container.Ports {
		ports[port.Name] = fmt.Sprintf(":%d", port.ContainerPort)
	}
	for path, row := range map[string]struct {
		probe  *corev1.Probe
		period int32 // In seconds, at least.
	}{"/healthz": {container.LivenessProbe, 60}, "/readyz": {container.ReadinessProbe, 5}} {
		get := row.probe.HTTPGet
		if got := ports[get.Port.StrVal]; get.Path != path || got == "" || got != values["MAYFLY_HEALTH_ADDRESS"] {
			t.Errorf("the probe of %s gets %s at %s", path, get.Path, got)
		}
		if row.probe.PeriodSeconds < row.period || row.probe.TimeoutSeconds < 5 {
			t.Errorf("the probe of %s comes every %d s and waits for %d s", path, row.probe.PeriodSeconds, row.probe.TimeoutSeconds)
		}
	}
}

func TestSample(t *testing.T) {
	all := objects(t, "sample/*.yaml")
	pod := the[*corev1.Pod](t, all)
	v := certificate(t, *pod)
	if !slices.ContainsFunc(each[*cmapi.Issuer](all), func(i *cmapi.Issuer) bool { return i.Name == v.Issuer.Name && i.Namespace == pod.Namespace }) {
		t.Errorf("the sample has no issuer %s/%s", pod.Namespace, v.Issuer.Name)
	}
}

func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(text, -1)
	if len(blocks) == 0 {
		t.Fatal("README.md has no pod")
	}
	for _, block := range blocks {
		certificate(t, *the[*corev1.Pod](t, decode(t, "README.md", block[1])))
	}
}

// certificate is what the pod's certificate volume asks for, as the driver parses it.
func certificate(t *testing.T, pod corev1.Pod) volume.Volume {
	t.Helper()
	source := pod.Spec.Volumes[0].CSI
	if driver := the[*storagev1.CSIDriver](t, objects(t, "*.yaml")).Name; source.Driver != driver {
		t.Errorf("the pod's driver is %s, not %s", source.Driver, driver)
	}
	if source.ReadOnly == nil || !*source.ReadOnly {
		t.Error("the pod's volume is not readOnly")
	}
	asked := volume.Asked{ID: "csi-1", Target: "/target", Asked: spec.Asked{Attributes: map[string]string{
		"csi.storage.k8s.io/pod.name":            pod.Name,
		"csi.storage.k8s.io/pod.namespace":       "default",
		"csi.storage.k8s.io/pod.uid":             "1",
		"csi.storage.k8s.io/serviceAccount.name": "default",
		"csi.storage.k8s.io/ephemeral":           "true",
	}}}
	for key, value := range source.VolumeAttributes {
		asked.Attributes[key] = value
	}
	v, err := volume.Parse(asked, volume.Defaults{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// The options say what the flags and the parser take, for the service account of the DaemonSet, or of the controller.
func TestOptions(t *testing.T) {
	all, options := objects(t, "*.yaml"), objects(t, "options/*.yaml")
	account, approver := the[*corev1.ServiceAccount](t, all), the[*corev1.ServiceAccount](t, objects(t, controller))
	for _, b := range each[*rbacv1.ClusterRoleBinding](options) {
		of := account
		if strings.HasPrefix(b.Name, approver.Name) {
			of = approver
		}
		want := []rbacv1.Subject{{Kind: "ServiceAccount", Name: of.Name, Namespace: of.Namespace}}
		if !slices.Equal(b.Subjects, want) || b.RoleRef.Name != b.Name {
			t.Errorf("%s binds %s to %v, not %v", b.Name, b.RoleRef.Name, b.Subjects, want)
		}
	}
	profiles, role := the[*corev1.ConfigMap](t, options), the[*rbacv1.Role](t, options)
	if _, err := volume.ParseProfiles(profiles.Data); err != nil {
		t.Error(err)
	}
	if !slices.Equal(role.Rules[0].ResourceNames, []string{profiles.Name}) || role.Namespace != profiles.Namespace || profiles.Namespace != account.Namespace {
		t.Errorf("the Role is for %v in %s, the ConfigMap is %s/%s", role.Rules[0].ResourceNames, role.Namespace, profiles.Namespace, profiles.Name)
	}
}

// The CSIDriver objects of the other names say what that of our own says.
func TestTheNamesOfOtherDrivers(t *testing.T) {
	ours := the[*storagev1.CSIDriver](t, objects(t, "csidriver.yaml"))
	var names []string
	for _, other := range each[*storagev1.CSIDriver](objects(t, "drop-in/*.yaml")) {
		names = append(names, other.Name)
		if !reflect.DeepEqual(other.Spec, ours.Spec) || !maps.Equal(other.Labels, ours.Labels) {
			t.Errorf("%s differs from %s", other.Name, ours.Name)
		}
	}
	if !slices.Equal(names, []string{spec.OldDriver, spec.SPIFFEDriver}) {
		t.Errorf("%v", names)
	}
}
