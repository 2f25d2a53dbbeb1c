package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/mayfly-csi/mayfly/cmd/flags"
	"github.com/mayfly-csi/mayfly/cmd/flags/flagstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func command(ctx context.Context, env map[string]string, args ...string) (code int, stdout, stderr string) {
	return flagstest.Run(ctx, mayfly(), env, args...)
}

func TestABadFlagIsOneLine(t *testing.T) {
	for _, row := range []struct {
		args string
		env  map[string]string
		want string
	}{
		{"", nil, "a command is missing: mayfly node, mayfly completion, mayfly man, mayfly version or mayfly help"},
		{"nod", nil, `unknown command "nod": there are node, completion, man, version and help`},
		{"node", nil, "--node-name is required"},
		{"node --nod-name=a", nil, "flag provided but not defined: -nod-name"},
		{"node --node-name", nil, "flag needs an argument: -node-name"},
		{"node --node-name=a extra", nil, `unexpected argument "extra"`},
		{"node --node-name=a --signer=vault", nil, "--signer=vault: there are cert-manager, pod-certificate and local"},
		{"node --node-name=a --log-format=xml", nil, "--log-format=xml: there are json and text"},
		{"node --node-name=a --log-level=loud", nil, `invalid value "loud" for flag -log-level: slog: level string "loud": unknown name`},
		{"node --node-name=a --keep-requests=-1", nil, `invalid value "-1" for flag -keep-requests: a number from 0 is needed`},
		{"node --node-name=a --selinux-context=container_file_t", nil, "--selinux-context=container_file_t: <user>:<role>:<type>:<level> is needed, such as system_u:object_r:container_file_t:s0"},
		{`node --node-name=a --selinux-context=a:b:c",size=1`, nil, `--selinux-context=a:b:c",size=1: <user>:<role>:<type>:<level> is needed, such as system_u:object_r:container_file_t:s0`},
		{"node --node-name=a --keep-requests=few", nil, `invalid value "few" for flag -keep-requests: a number from 0 is needed`},
		{"node --node-name=a --driver-name=a/b", nil, `invalid value "a/b" for flag -driver-name: "a/b": a driver's name has up to 63 letters, digits, dots and dashes`},
		{"node --node-name=a --driver-name=a=vault", nil, `invalid value "a=vault" for flag -driver-name: "vault" is not a dialect: there are mayfly, csi-driver, csi-driver-spiffe`},
		{"node --node-name=a --driver-name=a,a=csi-driver", nil, "--driver-name=a,a=csi-driver: a is given twice"},
		{"node --node-name=a --trust-file=/ca.pem", nil, `invalid value "/ca.pem" for flag -trust-file: <name>=<path> is needed`},
		{"node --node-name=a --trust-file=corp=ca.pem", nil, `invalid value "corp=ca.pem" for flag -trust-file: corp=ca.pem: a clean absolute path is needed`},
		{"node --node-name=a --trust-file=corp=/a,corp=/b", nil, "--trust-file=corp=/a,corp=/b: a name is given twice"},
		{"node --node-name=a --trust=file:corp", nil, `--trust-domain=cluster.local --spiffe-path=/ns/${POD_NAMESPACE}/sa/${SERVICE_ACCOUNT_NAME} --trust=file:corp: the trust of volumes that do not say has "file:corp": this driver has no files of CA certificates: its operator sets --trust-file`},
		{"node --node-name=a --kubelet-root=lib", nil, "--kubelet-root=lib: a clean absolute path is needed"},
		{"node --node-name=a --state-dir=volumes", nil, "--state-dir=volumes: an absolute path is needed"},
		{"node --node-name=a --kubelet-root=", nil, "--csi-endpoint is required where --kubelet-root is empty"},
		{"node --node-name=a --kubelet-root= --csi-endpoint=/a --state-dir=/b --signer=local", nil, "--local-ca is required where --kubelet-root is empty"},
		{"node --node-name=a --signer=local --watch-pods", nil, "--config-map, --watch-pods and --pod-readiness-gate need an API server: with --signer=local, --kubeconfig names it"},
		{"node --node-name=a --signer=local --use-token-request", nil, "--use-token-request is for --signer=cert-manager: the embedded CA asks nobody"},
		{"node --node-name=a --signer=pod-certificate --use-token-request", nil, "--use-token-request is for --signer=cert-manager: with --signer=pod-certificate the node asks"},
		{"node --node-name=a --signer=pod-certificate --keep-requests=1", nil, "--keep-requests is for --signer=cert-manager: PodCertificateRequests are Kubernetes' to delete"},
		{"node --node-name=a --config-map=mayfly", nil, "--config-map=mayfly: <namespace>/<name> is needed"},
		{"node --node-name=a --pod-readiness-gate=ready", nil, `invalid value "ready" for flag -pod-readiness-gate: "ready", which is no gate: there are pod-ip:any, pod-ip:ipv4, pod-ip:ipv6, pod-condition:<type>[=<status>] and pod-annotation:<key>`},
		{"node", map[string]string{"MAYFLY_KEEP_REQUESTS": "few"}, `MAYFLY_KEEP_REQUESTS="few": a number from 0 is needed`},
		{"node --node-name=a", map[string]string{"MAYFLY_SIGNER": "vault"}, "--signer=vault: there are cert-manager, pod-certificate and local"},
	} {
		t.Run(row.args, func(t *testing.T) {
			code, stdout, stderr := command(t.Context(), row.env, strings.Fields(row.args)...)
			if code != flags.ExitUsage || stdout != "" || stderr != "mayfly: "+row.want+"\n" {
				t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	for args, want := range map[string]string{
		"help":    "mayfly node [flags]",
		"--help":  "mayfly node [flags]",
		"node -h": "MAYFLY_DRIVER_NAME stands in for --driver-name",
		"version": flags.Version(),
	} {
		if code, stdout, stderr := command(t.Context(), nil, strings.Fields(args)...); code != flags.ExitOK || !strings.Contains(stdout, want) || stderr != "" {
			t.Errorf("%s: exit code %d, %q, %q", args, code, stdout, stderr)
		}
	}
}

func TestTheFlagWinsOverTheEnvironment(t *testing.T) {
	env := map[string]string{"MAYFLY_NODE_NAME": "from-env", "MAYFLY_DRIVER_NAME": "csi.example.org", "MAYFLY_CSI_ENDPOINT": "unix:///run/csi.sock"}
	o, err := parse([]string{"--node-name=from-flag"}, func(name string) string { return env[name] }, nil)
	if err != nil {
		t.Fatal(err)
	}
	if o.NodeName != "from-flag" || o.DriverNames.String() != "csi.example.org" || o.CSIEndpoint != "/run/csi.sock" ||
		o.StateDir != "/var/lib/kubelet/plugins/csi.mayfly.dev/volumes" {
		t.Errorf("%+v", o)
	}
}

func TestSeveralDriverNames(t *testing.T) {
	for args, want := range map[string]string{
		"":                                    "csi.mayfly.dev",
		"--driver-name=a --driver-name=b":     "a,b",
		"--driver-name=a,b":                   "a,b",
		"--driver-name=a=csi-driver,b=mayfly": "a=csi-driver,b",
		"--driver-name=csi.cert-manager.io=csi-driver,spiffe.csi.cert-manager.io=mayfly": "csi.cert-manager.io,spiffe.csi.cert-manager.io=mayfly",
		"--driver-name=a --driver-name=":                                                 "",
		"--driver-name=a,a":                                                              "",
		"--driver-name=a,b --csi-endpoint=/s":                                            "",
		"--driver-name=a,b --kubelet-root= --state-dir=/s":                               "",
	} {
		o, err := parse(append([]string{"--node-name=n"}, strings.Fields(args)...), func(string) string { return "" }, nil)
		if got := o.DriverNames.String(); (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("%s: %s (%v)", args, got, err)
		}
	}
	o, err := parse([]string{"--node-name=n", "--driver-name=c,d"}, func(name string) string {
		return map[string]string{"MAYFLY_DRIVER_NAME": "a,b"}[name]
	}, nil)
	if err != nil || len(o.driverNames()) != 2 || o.driverNames()[0].Endpoint != "/var/lib/kubelet/plugins/csi.mayfly.dev/c.sock" || o.driverNames()[1].Endpoint != "/var/lib/kubelet/plugins/csi.mayfly.dev/d.sock" || o.StateDir != "/var/lib/kubelet/plugins/csi.mayfly.dev/volumes" {
		t.Errorf("%+v (%v)", o, err)
	}
}

func TestTrustFiles(t *testing.T) {
	env := func(name string) string { return map[string]string{"MAYFLY_TRUST_FILE": "a=/a, b=/b"}[name] }
	for args, want := range map[string]string{
		"": "a=/a,b=/b",
		"--trust-file=c=/c --trust-file=d=/d/d.pem": "c=/c,d=/d/d.pem",
		"--trust-file=c=/c --trust=issuer,file:c":   "c=/c",
	} {
		o, err := parse(append([]string{"--node-name=n"}, strings.Fields(args)...), env, nil)
		if err != nil || o.TrustFiles.String() != want || len(o.defaults().TrustFiles) != strings.Count(want, "=") {
			t.Errorf("%s: %s (%v)", args, o.TrustFiles, err)
		}
	}
}

func TestAnSELinuxContext(t *testing.T) {
	for _, context := range []string{"", "system_u:object_r:container_file_t:s0", "a_u:b_r:c_t", "system_u:object_r:container_file_t:s0-s0:c0.c1023,c3"} {
		o, err := parse([]string{"--node-name=n", "--selinux-context=" + context}, func(string) string { return "" }, nil)
		if err != nil || o.defaults().SELinuxContext != context {
			t.Errorf("%q: %q (%v)", context, o.defaults().SELinuxContext, err)
		}
	}
}

func TestWhatIsNotTheCommandLinesFaultIsExitCode1(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for args, want := range map[string]string{
		"":                                  "find the API server: unable to load in-cluster configuration",
		"--kubeconfig=/does/not/exist":      "find the API server: ",
		"--signer=local --local-ca=" + file: "open the local CA: ",
		"--signer=local --kubeconfig=/none": "find the API server: ",
		"--signer=local --metrics-address=nowhere:x": "serve metrics: ",
		"--signer=local --health-address=nowhere:x":  "serve health: ",
	} {
		root := t.TempDir()
		args = "node --node-name=a --kubelet-root=" + root + " " + args
		code, _, stderr := command(t.Context(), nil, strings.Fields(args)...)
		if code != flags.ExitError || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit code %d, %q", args, code, stderr)
		}
	}
}
