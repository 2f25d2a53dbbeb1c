package cluster_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// admissionCheck: whether the API server keeps everyone else from deciding. The API server's defaults are no difference,
// and a binding that does not deny is one. The policy that is changed is one that no test needs any more.
func admissionCheck(t *testing.T) {
	const (
		policy   = "mayfly-node-ranges"
		inForce  = "Nobody but " + controllerAccount + " decides on what " + pluginAccount + " asks."
		others   = "others than " + controllerAccount + " may decide on what " + pluginAccount + " asks"
		policies = "../../manifests/controller/policies.yaml"
	)
	t.Cleanup(func() {
		if _, err := shared.Kubectl(context.Background(), "apply", "--filename", filepath.FromSlash(policies)); err != nil {
			t.Error(err)
		}
	})
	var flags []string
	check := func(wants ...string) {
		t.Helper()
		command := exec.Command(shared.controller, append([]string{"admission", "check", "--kubeconfig", shared.Kubeconfig()}, flags...)...)
		out, err := command.CombinedOutput()
		if inForce := wants[0] == inForce; inForce != (err == nil) {
			t.Errorf("exit code: %v", err)
		}
		for _, want := range wants {
			if !strings.Contains(string(out), want) {
				t.Errorf("it lacks %q:\n%s", want, out)
			}
		}
	}
	change := func(args ...string) {
		t.Helper()
		if _, err := shared.Kubectl(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	check(inForce)
	change("patch", "validatingadmissionpolicybinding", policy, "--type=merge",
		`--patch={"spec":{"validationActions":["Audit"]}}`)
	check("ValidatingAdmissionPolicyBinding "+policy+" is not as the manifests have it", others)
	change("delete", "validatingadmissionpolicy", policy)
	check("ValidatingAdmissionPolicy "+policy+" is missing",
		"2 of the objects of manifests/controller/policies.yaml are not in force", others)
	flags = []string{"--pod-certificates"}
	check("ValidatingAdmissionPolicy mayfly-bundles is missing", "ValidatingAdmissionPolicy mayfly-pod-certificates is missing")
}
