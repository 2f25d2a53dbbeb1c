package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	authenticationv1 "k8s.io/api/authentication/v1"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/mayfly-csi/mayfly/cmd/flags"
	"github.com/mayfly-csi/mayfly/cmd/flags/flagstest"
	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func command(ctx context.Context, env map[string]string, args ...string) (code int, stdout, stderr string) {
	return flagstest.Run(ctx, controller(), env, args...)
}

func TestABadFlagIsOneLine(t *testing.T) {
	for _, row := range []struct {
		args string
		env  map[string]string
		want string
	}{
		{"", nil, "a command is missing: mayfly-controller run, mayfly-controller policy check, mayfly-controller admission check, mayfly-controller completion, mayfly-controller man, mayfly-controller version or mayfly-controller help"},
		{"node", nil, `unknown command "node": there are run, policy check, admission check, completion, man, version and help`},
		{"policy", nil, `unknown command "policy": there are run, policy check, admission check, completion, man, version and help`},
		{"policy check --filename=", nil, "--filename names no file"},
		{"policy check -f=", nil, "--filename names no file"},
		{"policy check -x", nil, "flag provided but not defined: -x"},
		{"policy check --filename=x extra", nil, `unexpected argument "extra"`},
		{"policy check -f x -o yaml", nil, "--output=yaml: there are table and json"},
		{"policy check --filename=x --output=yaml", nil, "--output=yaml: there are table and json"},
		{"policy check --filename=x --cluster-domain=", nil, "--cluster-domain=: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"},
		{"admission check extra", nil, `unexpected argument "extra"`},
		{"run extra", nil, `unexpected argument "extra"`},
		{"run --node-plugin=", nil, "--node-plugin is required"},
		{"run --config-map=profiles", nil, "--config-map=profiles: <namespace>/<name> is needed"},
		{"run --cluster-domain=.local", nil, "--cluster-domain=.local: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"},
		{"run --spiffe-path=/${POD}", nil, `--trust-domain=cluster.local --spiffe-path=/${POD}: the path has an unknown variable "${POD}": known are NODE_NAME, POD_IP, POD_IPS, POD_NAME, POD_NAMESPACE, POD_UID, SERVICE_ACCOUNT_NAME`},
		{"run --pod-cidr=10.0.0.0", nil, `invalid value "10.0.0.0" for flag -pod-cidr: netip.ParsePrefix("10.0.0.0"): no '/'`},
		{"run --node-rate=3", nil, "--node-rate=3: at least 4 is needed"},
		{"run --audit-log-maxsize=0", nil, "--audit-log-maxsize=0: at least 1 is needed"},
		{"run --audit-log-maxbackup=0", nil, "--audit-log-maxbackup=0: at least 1 is needed"},
		{"run --audit-namespace=", nil, "--audit-log needs --audit-namespace"},
		{"run --log-format=xml", nil, "--log-format=xml: there are json and text"},
		{"run", map[string]string{"MAYFLY_POD_CERTIFICATES": "yes"}, `MAYFLY_POD_CERTIFICATES="yes": parse error`},
	} {
		t.Run(row.args, func(t *testing.T) {
			code, stdout, stderr := command(t.Context(), row.env, strings.Fields(row.args)...)
			if code != flags.ExitUsage || stdout != "" || stderr != "mayfly-controller: "+row.want+"\n" {
				t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	for args, want := range map[string]string{
		"help":               "mayfly-controller run [flags]",
		"run -h":             "MAYFLY_DRIVER_NAME stands in for --driver-name",
		"admission check -h": "Flags of mayfly-controller admission check; MAYFLY_",
		"policy check -h":    "Flags of mayfly-controller policy check; MAYFLY_DRIVER_NAME",
		"version":            flags.Version(),
	} {
		if code, stdout, stderr := command(t.Context(), nil, strings.Fields(args)...); code != flags.ExitOK || !strings.Contains(stdout, want) || stderr != "" {
			t.Errorf("%s: exit code %d, %q, %q", args, code, stdout, stderr)
		}
	}
}

const aPolicy = `
apiVersion: csi.mayfly.dev/v1alpha1
kind: CertificatePolicy
metadata: {name: web}
spec: {namespaces: [shop]}
`

// written is a file with a text.
func written(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policies.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWithoutAnAPIServer(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	t.Setenv("KUBECONFIG", "")
	t.Setenv("HOME", t.TempDir())
	for _, args := range [][]string{{"run"}, {"admission", "check"}, {"policy", "check", "--filename", written(t, aPolicy)}, {"policy", "check"}} {
		for _, kubeconfig := range []string{"", "/does/not/exist"} {
			code, _, stderr := command(t.Context(), nil, append(args, "--kubeconfig="+kubeconfig)...)
			want := flags.ExitUsage
			if args[0] == "run" {
				want = flags.ExitError
			}
			if code != want || !strings.HasPrefix(stderr, "mayfly-controller: find the API server: ") || strings.Count(stderr, "\n") != 1 {
				t.Errorf("%s: exit code %d, %q", args, code, stderr)
			}
		}
	}
}

func TestAFileThatIsNotUnderstood(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "there is no CertificatePolicy, and no pod or workload",
		"# None.":                     "there is no CertificatePolicy, and no pod or workload",
		"kind: Service":               "there is no CertificatePolicy, and no pod or workload",
		aPolicy + "---\nmetadata: {}": "document 2: it has no kind",
		aPolicy + "---\n{":            "document 2: error converting YAML to JSON: ",
		aPolicy + "  allowed: {}":     "document 1: ",
	} {
		path := written(t, text)
		code, _, stderr := command(t.Context(), nil, "policy", "check", "--filename", path)
		if code != flags.ExitUsage || !strings.HasPrefix(stderr, "mayfly-controller: read policies from "+path+": "+want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit code %d, %q", text, code, stderr)
		}
	}
	if code, _, stderr := command(t.Context(), nil, "policy", "check", "--filename=/does/not/exist"); code != flags.ExitUsage || stderr != "mayfly-controller: read policies: stat /does/not/exist: no such file or directory\n" {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}

// The controller's own pod is the one that its token is bound to.
func TestTheControllersPod(t *testing.T) {
	const account, name, uid = "system:serviceaccount:system:mayfly", "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"
	bound := map[string]authenticationv1.ExtraValue{name: {"mayfly-1"}, uid: {"uid-1"}}
	pod := identity{Username: account, Extra: bound}.pod()
	if pod == nil || pod.Namespace != "system" || pod.Name != "mayfly-1" || pod.UID != "uid-1" {
		t.Errorf("%+v", pod)
	}
	for _, other := range []identity{{}, {Username: account}, {Username: "admin", Extra: bound}} {
		if pod := other.pod(); pod != nil {
			t.Errorf("%+v has %+v", other, pod)
		}
	}
}

func TestRules(t *testing.T) {
	o, err := parse([]string{"--pod-cidr=10.0.0.0/8,fd00::/8", "--driver-name=a,b=csi-driver"}, func(string) string { return "" }, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := o.rules()
	if o.NodePlugin != "system:serviceaccount:mayfly-system:mayfly" || !slices.Equal(r.Drivers, []spec.DriverName{{Name: "a", Dialect: spec.Mayfly}, {Name: "b", Dialect: spec.CSIDriver}}) || len(r.PodCIDRs) != 2 ||
		r.Policy != (policy.Policy{ClusterDomain: "cluster.local"}) || r.Defaults.TrustDomain != "cluster.local" {
		t.Errorf("%+v", r)
	}
}

func TestReference(t *testing.T) {
	flagstest.Reference(t, "../../docs/controller.md", new(options).flags(), new(checkOptions).flags(), new(admissionOptions).flags())
}

// Replicas that do not lead decide and sign as well, so they need the profiles, too.
func TestShells(t *testing.T) { flagstest.Shells(t, controller()) }

func TestProfilesAreReadByEveryReplica(t *testing.T) {
	var runnable manager.Runnable = everywhere{func(context.Context) error { return nil }}
	if r, ok := runnable.(manager.LeaderElectionRunnable); !ok || r.NeedLeaderElection() {
		t.Error("they are read by the leader alone")
	}
}
