package main

import (
	"context"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/mayfly-csi/mayfly/cmd/flags"
	"github.com/mayfly-csi/mayfly/cmd/flags/flagstest"
	"github.com/mayfly-csi/mayfly/signer/controller/policy"
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
		{"", nil, "a command is missing: mayfly-controller run, mayfly-controller approvers, mayfly-controller version or mayfly-controller help"},
		{"node", nil, `unknown command "node": there are run, approvers, version and help`},
		{"approvers extra", nil, `unexpected argument "extra"`},
		{"run extra", nil, `unexpected argument "extra"`},
		{"run --node-plugin=", nil, "--node-plugin is required"},
		{"run --config-map=profiles", nil, "--config-map=profiles: <namespace>/<name> is needed"},
		{"run --cluster-domain=.local", nil, "--cluster-domain=.local: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"},
		{"run --spiffe-path=/${POD}", nil, `--trust-domain=cluster.local --spiffe-path=/${POD}: the path has an unknown variable "${POD}": known are POD_IP, POD_IPS, POD_NAME, POD_NAMESPACE, POD_UID, SERVICE_ACCOUNT_NAME`},
		{"run --pod-cidr=10.0.0.0", nil, `invalid value "10.0.0.0" for flag -pod-cidr: netip.ParsePrefix("10.0.0.0"): no '/'`},
		{"run --log-format=xml", nil, "--log-format=xml: there are json and text"},
		{"run", map[string]string{"MAYFLY_ALLOW_ANY_NAME": "yes"}, `MAYFLY_ALLOW_ANY_NAME="yes": parse error`},
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
		"help":         "mayfly-controller run [flags]",
		"approvers -h": "Flags of mayfly-controller approvers; MAYFLY_",
		"run -h":       "MAYFLY_DRIVER_NAME stands in for --driver-name",
		"version":      flags.Version(),
	} {
		if code, stdout, stderr := command(t.Context(), nil, strings.Fields(args)...); code != flags.ExitOK || !strings.Contains(stdout, want) || stderr != "" {
			t.Errorf("%s: exit code %d, %q, %q", args, code, stdout, stderr)
		}
	}
}

func TestWithoutAnAPIServer(t *testing.T) {
	for _, verb := range []string{"run", "approvers"} {
		code, _, stderr := command(t.Context(), nil, verb, "--kubeconfig=/does/not/exist")
		if code != flags.ExitError || !strings.HasPrefix(stderr, "mayfly-controller: find the API server: ") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit code %d, %q", verb, code, stderr)
		}
	}
}

func TestRules(t *testing.T) {
	o, err := parse([]string{"--pod-cidr=10.0.0.0/8,fd00::/8", "--driver-name=a,b", "--allow-any-name"}, func(string) string { return "" }, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := o.rules()
	if o.NodePlugin != "system:serviceaccount:mayfly-system:mayfly" || !slices.Equal(r.Drivers, []string{"a", "b"}) || len(r.PodCIDRs) != 2 ||
		r.Policy != (policy.Policy{ClusterDomain: "cluster.local", AnyName: true}) || r.Defaults.TrustDomain != "cluster.local" {
		t.Errorf("%+v", r)
	}
}

func TestReference(t *testing.T) {
	flagstest.Reference(t, "../../docs/controller.md", new(options).flags(), new(approversOptions).flags())
}
