package chart

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	releaseutil "helm.sh/helm/v4/pkg/release/v1/util"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
)

const repository = "../.."

// mustRender renders the chart, or ends the test.
func mustRender(t *testing.T, values Values, cluster Cluster) map[string]string {
	t.Helper()
	files, err := Render(repository, values, cluster)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// fromFile reads a values file.
func fromFile(t *testing.T, path string) Values {
	t.Helper()
	values, err := common.ReadValuesFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// ci returns the values files of the chart, by their paths.
func ci(t *testing.T) map[string]Values {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir(repository), "ci", "*-values.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatal("the chart has no values files", err)
	}
	all := map[string]Values{}
	for _, path := range paths {
		all[path] = fromFile(t, path)
	}
	return all
}

// manifests are the objects of all templates, in the order in which Helm makes them.
func manifests(t *testing.T, files map[string]string) []releaseutil.Manifest {
	t.Helper()
	files = maps.Clone(files)
	delete(files, "templates/NOTES.txt")
	hooks, sorted, err := releaseutil.SortManifests(files, nil, releaseutil.InstallOrder)
	if err != nil || len(hooks) > 0 {
		t.Fatal(len(hooks), err)
	}
	return sorted
}

// names are kind and name of all objects of the templates.
func names(t *testing.T, files map[string]string) (all []string) {
	t.Helper()
	for _, m := range manifests(t, files) {
		all = append(all, m.Head.Kind+" "+m.Head.Metadata.Name)
	}
	return all
}

// The install files are what the chart renders, and there are no others but what users copy, and one patch.
func TestInstallFiles(t *testing.T) {
	files, err := InstallFiles(repository)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(repository, "manifests")
	err = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		switch {
		case slices.Contains([]string{"chart", "examples", "sample"}, name):
			return fs.SkipDir
		case filepath.Ext(path) != ".yaml", name == "options/control-plane.yaml":
			return err
		}
		text, failed := os.ReadFile(path)
		if want, ok := files[name]; !ok || want != string(text) {
			t.Errorf("%s is not what the chart renders: make generate", name)
		}
		delete(files, name)
		return errors.Join(err, failed)
	})
	if err != nil || len(files) > 0 {
		t.Errorf("missing: %v, %v", slices.Collect(maps.Keys(files)), err)
	}
}

// The chart's own files are up to date.
func TestFilesOfTheChart(t *testing.T) {
	for path, write := range map[string]func(string) (string, error){
		"values.schema.json": Schema, "files/values.txt": Known, "files/alerts.yaml": Alerts,
	} {
		want, err := write(repository)
		if err != nil {
			t.Error(err)
			continue
		}
		if got, err := os.ReadFile(filepath.Join(dir(repository), path)); err != nil || string(got) != want {
			t.Errorf("%s is not up to date: make generate (%v)", path, err)
		}
	}
}

// Helm's linter finds nothing but that there is no icon.
func TestLint(t *testing.T) {
	all := ci(t)
	all["the defaults"] = Values{}
	for name, values := range all {
		lint := action.NewLint()
		lint.Strict, lint.Namespace = true, "mayfly-system"
		version, err := common.ParseKubeVersion("v1.37.0")
		if err != nil {
			t.Fatal(err)
		}
		lint.KubeVersion = version
		for _, m := range lint.Run([]string{dir(repository)}, values).Messages {
			if m.Err.Error() != "icon is recommended" {
				t.Errorf("%s: %v", name, m)
			}
		}
	}
}

// Every object has only fields of its kind, and none is there twice.
func TestObjects(t *testing.T) {
	known := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(known), apiextensionsv1.AddToScheme(known)); err != nil {
		t.Fatal(err)
	}
	decoder := serializer.NewCodecFactory(known, serializer.EnableStrict).UniversalDeserializer()
	all := ci(t)
	all["the defaults"] = Values{}
	for name, values := range all {
		seen := map[string]bool{}
		for _, m := range manifests(t, mustRender(t, values, Cluster{})) {
			if key := m.Head.Kind + " " + m.Head.Metadata.Name; seen[key] && m.Head.Kind != "Role" {
				t.Errorf("%s: %s is there twice", name, key)
			} else {
				seen[key] = true
			}
			if strings.HasPrefix(m.Head.Version, "monitoring.coreos.com/") { // Another project's kinds.
				continue
			}
			if _, _, err := decoder.Decode([]byte(m.Content), nil, nil); err != nil {
				t.Errorf("%s: %s %s: %v", name, m.Head.Kind, m.Head.Metadata.Name, err)
			}
		}
	}
}

// A DaemonSet that is there before its service account has failed events for its first pods.
func TestOrder(t *testing.T) {
	all := names(t, mustRender(t, nil, Cluster{}))
	account, plugin := slices.Index(all, "ServiceAccount mayfly"), slices.Index(all, "DaemonSet mayfly")
	if account < 0 || account > plugin {
		t.Errorf("%v", all)
	}
}

// What a mode has, and no other.
func TestModes(t *testing.T) {
	driver := []string{
		"ClusterRole mayfly", "Deployment mayfly-controller", "ValidatingAdmissionPolicy mayfly-requests",
	}
	podCertificate := []string{
		"ClusterRole mayfly-pod-certificate", "ClusterRole mayfly-nodes", "Namespace mayfly-ca",
		"ValidatingAdmissionPolicy mayfly-pod-certificates", "ClusterRole mayfly-controller-authority",
	}
	everything := slices.Concat(driver, podCertificate)
	for _, row := range []struct {
		mode, keep    string
		signer, signs bool // Whether nodes ask, and whether the controller signs.
		objects       []string
	}{
		{mode: "driver", objects: driver},
		{mode: "none", objects: driver[:1]},
		{mode: "pod-certificate", signer: true, signs: true, objects: slices.Concat(driver[1:], podCertificate)},
		{mode: "pod-certificate", keep: "driver", signer: true, signs: true, objects: everything},
		{mode: "driver", keep: "pod-certificate", signs: true, objects: everything},
		{mode: "none", keep: "driver", objects: driver},
		{mode: "driver", keep: "none", objects: driver},
		{mode: "pod-certificate", keep: "none", signer: true, signs: true, objects: everything},
		{mode: "none", keep: "pod-certificate", signs: true, objects: everything},
	} {
		files := mustRender(t, Values{"mode": row.mode, "keepRightsOf": row.keep}, Cluster{})
		all := names(t, files)
		for _, object := range everything {
			if got := slices.Contains(all, object); got != slices.Contains(row.objects, object) {
				t.Errorf("mode %s, keeping %q: %s is there: %v", row.mode, row.keep, object, got)
			}
		}
		if got := strings.Contains(files["templates/daemonset.yaml"], "MAYFLY_SIGNER"); got != row.signer {
			t.Errorf("mode %s, keeping %q: the node asks: %v", row.mode, row.keep, got)
		}
		deployment := files["templates/controller/workload.yaml"]
		if got := strings.Contains(deployment, "MAYFLY_POD_CERTIFICATES"); got != row.signs {
			t.Errorf("mode %s, keeping %q: the controller signs: %v", row.mode, row.keep, got)
		}
	}
}

// The values that csi-driver's and csi-driver-spiffe's charts have by default are taken, and what is ignored is named.
func TestValuesOfOtherCharts(t *testing.T) {
	for name, row := range map[string]struct {
		driver  string
		ignored []string
	}{
		"csi-driver": {"csi.mayfly.dev,csi.cert-manager.io", []string{
			"nodeDriverRegistrarImage", "livenessProbeImage",
			"app.driver.kubernetesAPIQPS", "app.driver.kubernetesAPIBurst",
			"app.driver.gateBackoff", "app.driver.csiDataDir",
		}},
		"csi-driver-spiffe": {"csi.mayfly.dev,spiffe.csi.cert-manager.io", []string{
			"driverImage", "approverImage", "nodeDriverRegistrarImage", "livenessProbeImage",
			"topologySpreadConstraints",
			"app.certificateRequestDuration", "app.extraCertificateRequestAnnotations",
			"app.driver.volumeFileName",
			"app.driver.csiDataDir", "app.driver.useOwnServiceAccount",
			"app.driver.resources", "app.driver.livenessProbe", "app.approver",
		}},
	} {
		files := mustRender(t, fromFile(t, filepath.Join("testdata", name+".yaml")), Cluster{})
		plugin, notes := files["templates/daemonset.yaml"], files["templates/NOTES.txt"]
		if !strings.Contains(plugin, `value: "`+row.driver+`"`) || !strings.Contains(plugin, " mayfly:devel\n") {
			t.Errorf("%s: %s", name, plugin)
		}
		_, list, _ := strings.Cut(notes, "These values mean nothing to Mayfly, and are ignored:\n")
		got := strings.Fields(list)
		slices.Sort(got)
		slices.Sort(row.ignored)
		const image = "another driver's, and is ignored: mayfly:devel runs"
		if !slices.Equal(got, row.ignored) || !strings.Contains(notes, image) {
			t.Errorf("%s: ignored are %q, want %q; %s", name, got, row.ignored, notes)
		}
	}
}

// What can't be is refused in words that say what to do.
func TestBadValues(t *testing.T) {
	for _, row := range []struct {
		set, version, want string
	}{
		{"mode=sidecar", "", "'driver', 'pod-certificate', 'none'"},
		{"mode=pod-certificate", "v1.36.2", "needs Kubernetes 1.37, and this cluster has v1.36.2: use mode driver"},
		{"keepRightsOf=pod-certificate", "v1.36.2", "needs Kubernetes 1.37"},
		{"mode=driver", "v1.29.0", "needs Kubernetes 1.30"},
		{"mode=driver,keepRightsOf=driver", "", "keepRightsOf is driver, as mode is"},
		{"mode=pod-certificate,app.driver.useTokenRequest=true", "", "is for the modes driver and none"},
		{"app.logLevel=loud", "", `app.logLevel is "loud": give debug, info, warn or error`},
		{"app.kubeletRootDir=var/lib/kubelet", "", "give an absolute path"},
		{"app.kubeletRootDir=/var/lib/kubelet/", "", "without a slash at its end"},
		{"networkPolicy.enabled=true", "", "networkPolicy.apiServer is empty: give the ranges"},
		{"allowedNamespaces.enabled=true", "", "neither names nor labels"},
		{
			"mode=none,allowedNamespaces.enabled=true,allowedNamespaces.names={a}", "v1.29.0",
			"allowedNamespaces needs Kubernetes 1.30",
		},
		{"profiles.issuer-name=ca,app.runtimeIssuanceConfigMap=x", "", "Mayfly reads one ConfigMap"},
		{"controller.replicaCount=0", "", "/controller/replicaCount"},
		{"mode=none,startupTaint.enabled=true", "", "there is no controller, which takes the taint off nodes"},
		{"extraEnv[0].name=MAYFLY_HEALTH_ADDRESS", "", "extraEnv has MAYFLY_HEALTH_ADDRESS, which the chart sets by other values"},
		{"controller.extraEnv[0].name=GOMEMLIMIT", "", "controller.extraEnv has GOMEMLIMIT, which the chart sets"},
		{"allowedNamespaces.enabled=true,allowedNamespaces.labels.a=true", "", "/allowedNamespaces/labels/a"},
		{"controller.replicas=3", "", "additional properties 'replicas' not allowed"},
		{"hostNetwork=sometimes", "", "/hostNetwork"},
		{"app.livenessProbe.port=70000", "", "/app/livenessProbe/port"},
	} {
		_, err := Render(repository, parsed(t, row.set), Cluster{Version: row.version})
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", row.set, err, row.want)
		}
	}
	if _, err := Render(repository, Values{"mode": "none"}, Cluster{Version: "v1.29.0"}); err != nil {
		t.Errorf("mode none on Kubernetes 1.29: %v", err)
	}
}

// What an API server does not know is not in its objects, and one replica can be drained.
func TestWhatIsLeftOut(t *testing.T) {
	const tokens, key, budget = "app.driver.useTokenRequest=true", "serviceAccountTokenInSecrets: true", "PodDisruptionBudget"
	for _, row := range []struct {
		set, version, file, text string
		want                     bool
	}{
		{tokens, "v1.34.0", "templates/csidriver.yaml", key, false},
		{tokens, "v1.35.0", "templates/csidriver.yaml", key, true},
		{"controller.replicaCount=1", "", "templates/controller/workload.yaml", budget, false},
		{"controller.replicaCount=2", "", "templates/controller/workload.yaml", budget, true},
	} {
		file := mustRender(t, parsed(t, row.set), Cluster{Version: row.version})[row.file]
		if file == "" || strings.Contains(file, row.text) != row.want {
			t.Errorf("%s, %s: %s", row.set, row.version, file)
		}
	}
}

// What Helm prints at the end.
func TestNotes(t *testing.T) {
	for _, row := range []struct {
		set     string
		cluster Cluster
		want    []string
		not     []string
	}{
		{"", Cluster{}, []string{
			"in mode driver", "Names beyond a pod's own need a CertificatePolicy",
			"\n  mayfly-controller policy check --all-namespaces\n",
			"\n  mayfly-controller admission check\n", "This cluster has no cert-manager",
		}, []string{"mean nothing", "another driver's"}},
		{
			"mode=pod-certificate", Cluster{APIs: []string{"cert-manager.io/v1"}},
			[]string{"admission check --pod-certificates\n"}, []string{"no cert-manager"},
		},
		{"mode=none", Cluster{}, []string{"Nobody sees to it"}, []string{"policy check"}},
		{"namespaceOverride=pki,dropIn.csiDriver=true,app.trustDomain=example.org", Cluster{}, []string{
			"policy check --all-namespaces --driver-name=csi.mayfly.dev,csi.cert-manager.io " +
				"--trust-domain=example.org\n",
			"--node-plugin=system:serviceaccount:pki:mayfly " +
				"--controller=system:serviceaccount:pki:mayfly-controller\n",
		}, nil},
		{"mode=pod-certificate,keepRightsOf=driver", Cluster{}, []string{"once more without keepRightsOf"}, nil},
		{"app.driver.useTokenRequest=true", Cluster{}, []string{"to the ClusterRole mayfly-ask-as-pod"}, nil},
		{"mdoe=none", Cluster{}, []string{"ignored:\n  mdoe\n"}, nil},
		{"", Cluster{Lookup: restricted(t)}, []string{
			"kubectl label --overwrite namespace mayfly-system pod-security.kubernetes.io/enforce=privileged",
		}, nil},
	} {
		notes := mustRender(t, parsed(t, row.set), row.cluster)["templates/NOTES.txt"]
		for _, want := range row.want {
			if !strings.Contains(notes, want) {
				t.Errorf("%s: no %q in %s", row.set, want, notes)
			}
		}
		for _, not := range row.not {
			if strings.Contains(notes, not) {
				t.Errorf("%s: %q in %s", row.set, not, notes)
			}
		}
	}
}

// The objects are those of the release's namespace, whatever the release is called.
func TestOtherReleases(t *testing.T) {
	c, err := load(repository)
	if err != nil {
		t.Fatal(err)
	}
	release := common.ReleaseOptions{Name: "pki", Namespace: "certificates", IsUpgrade: true, Revision: 2}
	files, err := render(c, nil, release, Cluster{})
	if err != nil {
		t.Fatal(err)
	}
	for path, wants := range map[string][]string{
		"templates/controller/policies.yaml": {
			"'system:serviceaccount:certificates:mayfly'", "'system:serviceaccount:certificates:mayfly-controller'",
		},
		"templates/controller/workload.yaml": {
			"value: \"system:serviceaccount:certificates:mayfly\"\n",
			"name: MAYFLY_AUDIT_NAMESPACE\n              value: \"certificates\"\n",
		},
		"templates/rbac.yaml": {"namespace: certificates\n"},
	} {
		for _, want := range wants {
			if !strings.Contains(files[path], want) {
				t.Errorf("no %q in %s", want, files[path])
			}
		}
	}
	for path, text := range files {
		if strings.Contains(text, "mayfly-system:") || strings.Contains(text, "namespace: mayfly-system") {
			t.Errorf("%s is about another namespace", path)
		}
	}
}
