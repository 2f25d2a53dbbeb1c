package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/cmd/flags"
	"github.com/mayfly-csi/mayfly/signer/controller/review"
)

// podOf is a pod in JSON whose volume tls asks for a name.
func podOf(namespace, name, dnsName string) string {
	return fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": %q, "name": %q, "uid": "1"}, "spec": {"serviceAccountName": "clerk", "nodeName": "a",
		"volumes": [{"name": "tls", "csi": {"driver": "csi.mayfly.dev", "volumeAttributes": {"csi.mayfly.dev/issuer-name": "ca", "csi.mayfly.dev/dns-names": %q}}}]}}`, namespace, name, dnsName)
}

// A testServer is an API server with pods and a policy for the namespace bank, which notes what is asked of it.
type testServer struct {
	*testing.T
	asked   []string
	refuses string // The end of a path.
}

func (s *testServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked = append(s.asked, r.URL.Path)
	bank := `{"metadata": {"name": "bank"}, "spec": {"namespaces": ["bank"], "serviceAccounts": ["clerk"], "allow": {"ownNames": false}}}`
	answers := map[string]string{
		"/api":  `{"kind": "APIVersions", "versions": ["v1"]}`,
		"/apis": `{"kind": "APIGroupList", "groups": [{"name": "csi.mayfly.dev", "versions": [{"groupVersion": "csi.mayfly.dev/v1alpha1", "version": "v1alpha1"}]}]}`,
		"/api/v1": `{"kind": "APIResourceList", "groupVersion": "v1", "resources": [
			{"name": "pods", "kind": "Pod", "namespaced": true, "verbs": ["list"]}, {"name": "nodes", "kind": "Node", "verbs": ["list"]}]}`,
		"/apis/csi.mayfly.dev/v1alpha1": `{"kind": "APIResourceList", "groupVersion": "csi.mayfly.dev/v1alpha1", "resources": [
			{"name": "certificatepolicies", "kind": "CertificatePolicy", "verbs": ["list"]}]}`,
		"/apis/csi.mayfly.dev/v1alpha1/certificatepolicies": `{"kind": "CertificatePolicyList", "apiVersion": "csi.mayfly.dev/v1alpha1", "items": [` + bank + `]}`,
		"/api/v1/nodes": `{"kind": "NodeList", "apiVersion": "v1", "items": []}`,
		"/api/v1/pods": `{"kind": "PodList", "apiVersion": "v1", "items": [` + podOf("shop", "web", "web.shop.svc") + "," + podOf("shop", "other", "other.test") + "," +
			podOf("bank", "web", "web.bank.svc") + `]}`,
		"/api/v1/namespaces/shop/pods": `{"kind": "PodList", "apiVersion": "v1", "items": [` + podOf("shop", "web", "web.shop.svc") + `]}`,
	}
	answer, known := answers[r.URL.Path]
	w.Header().Set("Content-Type", "application/json")
	switch {
	case s.refuses != "" && strings.HasSuffix(r.URL.Path, s.refuses):
		w.WriteHeader(http.StatusForbidden)
		answer = `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "message": "forbidden", "code": 403}`
	case !known:
		w.WriteHeader(http.StatusNotFound)
		answer = `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}`
	}
	if _, err := w.Write([]byte(answer)); err != nil {
		s.Error(err)
	}
}

// serve makes KUBECONFIG a file that has the server as its context test, whose namespace is team; its current one leads
// nowhere.
func (s *testServer) serve() {
	s.Helper()
	server := httptest.NewServer(s)
	s.Cleanup(server.Close)
	s.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	path := filepath.Join(s.TempDir(), "config")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: test, users: [{name: u, user: {}}],
		clusters: [{name: c, cluster: {server: %q}}, {name: away, cluster: {server: "http://127.0.0.1:1"}}],
		contexts: [{name: test, context: {cluster: c, user: u, namespace: team}}, {name: away, context: {cluster: away, user: u}}]}`, server.URL)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
	s.Setenv("KUBECONFIG", path)
}

// directory has files of these names and texts.
func directory(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const policyOf = "apiVersion: csi.mayfly.dev/v1alpha1\nkind: CertificatePolicy\nmetadata: {name: %s}\nspec: {namespaces: [%s], allow: {%s}}\n"

func TestPolicyCheck(t *testing.T) {
	s := &testServer{T: t}
	s.serve()
	none, test := fmt.Sprintf(policyOf, "none", "shop", "ownNames: false"), fmt.Sprintf(policyOf, "test", "shop", "dnsNames: [other.test]")
	bank := fmt.Sprintf(policyOf, "bank", "bank", "ownNames: true")
	both := directory(t, map[string]string{"a.yaml": test, "b.yml": bank, "c.json": `{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}}`, "README": "kind: {"})
	const (
		lost  = "shop        web   clerk             tls      approved   denied   CertificatePolicy none: "
		other = "shop        other   clerk             tls      denied   denied   "
		vault = "bank        web     clerk             tls      denied   denied   CertificatePolicy bank: "
		warns = "Warning: CertificatePolicy bank: pods of the namespaces bank leave it"
	)
	for _, row := range []struct {
		args string
		code int
		want []string
		not  string
	}{
		{"", flags.ExitError, []string{other, vault, warns, "Looked at 3 volumes of 3 running pods of all namespaces, by 1 CertificatePolicies of the cluster: 2 are denied.\n"}, "shop        web "},
		{"-n shop", flags.ExitOK, []string{warns, "Looked at 1 volumes of 1 running pods of namespace shop, by 1 CertificatePolicies of the cluster: 0 are denied.\n"}, "NAMESPACE"},
		{"-n=shop -A", flags.ExitError, []string{other, vault}, "namespace shop"},
		{"--context test -n shop", flags.ExitOK, []string{"0 are denied"}, "NAMESPACE"},
		{"-f " + written(t, none), flags.ExitError, []string{lost, "and 1 of files: 1 would be denied and 0 approved that are not today.\n"}, other},
		{"-f " + written(t, none) + " --all", flags.ExitError, []string{"web     clerk             tls      approved   denied   CertificatePolicy none", "other   clerk             tls      denied     denied"}, ""},
		{"-f " + both, flags.ExitOK, []string{
			"shop        other   clerk             tls      denied   approved   today: DNS name \"other.test\" is not the pod's", "bank        web     clerk             tls      denied   approved   today: CertificatePolicy bank: ",
			"and 2 of files: 0 would be denied and 2 approved that are not today.\n", "Passed over 1 objects of files that are no CertificatePolicies, pods or workloads.\n",
		}, "Warning"},
		{"-f " + written(t, test) + " -f " + written(t, none), flags.ExitOK, []string{"and 2 of files: 0 would be denied and 1 approved"}, lost}, // They are alternatives.
		{"-f " + written(t, podOf("bank", "new", "new.bank.svc")), flags.ExitError, []string{
			"Pod bank/new, volume tls: would be denied\n  because:     CertificatePolicy bank: DNS name \"new.bank.svc\" is not allowed", "\n  decided by:  CertificatePolicy bank\n",
			"\n  DNS names:   new.bank.svc\n", "\n  duration:    1h0m0s\n  key:         ECDSA 256\n  issuer:      Issuer ca of cert-manager.io\n", "Looked at 1 volumes of pods of files.\n",
		}, ""},
		{"-f " + written(t, podOf("", "new", "new.team.svc")), flags.ExitOK, []string{
			"Pod team/new, volume tls: would be approved\n  decided by:  own names: no CertificatePolicy selects the pod\n  DNS names:   new.team.svc\n",
			"\n  usages:      digital signature, server auth, client auth\n",
		}, "because"},
		{"-n shop -f " + written(t, podOf("", "new", "new.shop.svc")), flags.ExitOK, []string{"Pod shop/new, volume tls: would be approved\n"}, ""},
		{"-f " + written(t, podOf("", "new", "other.test")) + " -n shop -f " + both, flags.ExitOK, []string{"Pod shop/new, volume tls: would be approved\n  decided by:  CertificatePolicy test\n"}, ""},
		{"--context away", flags.ExitUsage, nil, ""},
		{"--context none", flags.ExitUsage, nil, ""},
		{"--kubeconfig /does/not/exist", flags.ExitUsage, nil, ""},
		{"-f " + written(t, strings.ReplaceAll(none, "ownNames: false", "ips: [10.0.0.1/8]")), flags.ExitUsage, nil, ""},
		{"-f " + directory(t, map[string]string{"README": none}), flags.ExitUsage, nil, ""},
	} {
		code, stdout, stderr := command(t.Context(), nil, append([]string{"policy", "check"}, strings.Fields(row.args)...)...)
		if code != row.code || (stderr == "") != (code == flags.ExitOK) || strings.HasPrefix(stderr, "mayfly-controller: denied: ") != (code == flags.ExitError) || row.want == nil && stdout != "" {
			t.Errorf("%s: exit code %d, %s", row.args, code, stderr)
		}
		for _, want := range row.want {
			if !strings.Contains(stdout, want) {
				t.Errorf("%s lacks %q:\n%s", row.args, want, stdout)
			}
		}
		if row.not != "" && strings.Contains(stdout, row.not) {
			t.Errorf("%s has %q:\n%s", row.args, row.not, stdout)
		}
	}
}

func TestPolicyCheckInJSON(t *testing.T) {
	s := &testServer{T: t}
	s.serve()
	code, stdout, _ := command(t.Context(), nil, "policy", "check", "-o", "json", "-f", written(t, fmt.Sprintf(policyOf, "bank", "bank", "dnsNames: [x.test]")+"---\n"+podOf("bank", "new", "y.test")))
	var report review.Report
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	if code != flags.ExitError || report.Pods != 3 || report.Volumes != 3 || report.Policies != 1 || report.Added != 1 || len(report.Denials) != 0 || len(report.Warnings) != 0 ||
		len(report.Approvals) != 1 || report.Approvals[0].Namespace != "bank" || len(report.Planned) != 1 || report.Planned[0].Approved || report.Planned[0].Certificate.DNSNames[0] != "y.test" {
		t.Errorf("exit code %d, %s", code, stdout)
	}
	for _, want := range []string{`"denials": []`, `"serviceAccount": "clerk"`, `"approved": false`, `"policies": [`} {
		if !strings.Contains(stdout, want) {
			t.Errorf("it lacks %s:\n%s", want, stdout)
		}
	}
}

func TestPolicyCheckWithoutAKubeconfig(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	const want = "mayfly-controller: find the API server: there is no kubeconfig file: --kubeconfig and KUBECONFIG can name one\n"
	if code, _, stderr := command(t.Context(), nil, "policy", "check"); code != flags.ExitUsage || stderr != want {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}

// Who may not list nodes is told what follows; without the rest there is nothing to say.
func TestPolicyCheckWithoutRights(t *testing.T) {
	for refused, row := range map[string]struct {
		code int
		want string
	}{
		"/nodes":               {flags.ExitError, "Warning: the nodes may not be listed: "},
		"/pods":                {flags.ExitUsage, "mayfly-controller: list the pods: forbidden\n"},
		"/certificatepolicies": {flags.ExitUsage, "mayfly-controller: list the CertificatePolicies: forbidden\n"},
	} {
		t.Run(refused, func(t *testing.T) {
			s := &testServer{T: t, refuses: refused}
			s.serve()
			code, stdout, stderr := command(t.Context(), nil, "policy", "check")
			if code != row.code || !strings.Contains(stdout+stderr, row.want) {
				t.Errorf("exit code %d, %s%s", code, stdout, stderr)
			}
		})
	}
}
