package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// approvers: who else may approve, by the roles that cert-manager's chart makes, without them, and with a policy in their way.
func approvers(t *testing.T) {
	const (
		certManager = "system:serviceaccount:cert-manager:cert-manager"
		binding     = "cert-manager-controller-approve:cert-manager-io"
		row         = "User " + certManager + "  clusterissuers.cert-manager.io/*,issuers.cert-manager.io/*  *           ClusterRoleBinding " + binding
		policies    = "../../manifests/modes/pod/policies.yaml"
	)
	roles := filepath.Join("testdata", "approver.yaml")
	t.Cleanup(func() {
		if _, err := shared.Kubectl(context.Background(), "delete", "--ignore-not-found", "--filename", roles, "--filename", policies); err != nil {
			t.Error(err)
		}
	})
	if _, err := shared.Kubectl(t.Context(), "apply", "--filename", roles); err != nil {
		t.Fatal(err)
	}
	path := shared.controller
	check := func(code int, wants ...string) {
		t.Helper()
		out, got := runApprovers(t, path)
		for _, want := range wants {
			if got != code || !strings.Contains(out, want) {
				t.Errorf("exit code %d, want %d and %q:\n%s", got, code, want, out)
			}
		}
		if strings.Contains(out, "User "+controllerAccount) {
			t.Errorf("the controller is another:\n%s", out)
		}
	}
	check(1, row, "Group system:masters", "(an administrator)", "1 besides mayfly-controller may approve whatever a pod asks for with its own token")
	if !mayApprove(t, certManager) {
		t.Error("the API server says otherwise")
	}
	if _, err := shared.Kubectl(t.Context(), "apply", "--filename", policies); err != nil {
		t.Fatal(err)
	}
	check(0, row, "The policy mayfly-pod-decisions keeps them from those that pods make for themselves.")
	if _, err := shared.Kubectl(t.Context(), "delete", "--filename", policies); err != nil {
		t.Fatal(err)
	}
	check(1, row)
	if _, err := shared.Kubectl(t.Context(), "delete", "clusterrolebinding", binding); err != nil {
		t.Fatal(err)
	}
	check(0, "Nobody but mayfly-controller and administrators may approve CertificateRequests")
	until(t, "the API server to say so, too", func() bool { return !mayApprove(t, certManager) })
}

// runApprovers runs `mayfly-controller approvers` as an administrator.
func runApprovers(t *testing.T, path string) (out string, code int) {
	t.Helper()
	var text bytes.Buffer
	cmd := exec.Command(path, "approvers", "--kubeconfig", shared.Kubeconfig())
	cmd.Stdout, cmd.Stderr = &text, &text
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return text.String(), exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return text.String(), 0
}

// mayApprove is what the API server says of a user.
func mayApprove(t *testing.T, user string) bool {
	t.Helper()
	ask := func(verb, resource, subresource, name string) bool {
		review, err := shared.Client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User:               user,
			ResourceAttributes: &authorizationv1.ResourceAttributes{Group: "cert-manager.io", Version: "*", Verb: verb, Resource: resource, Subresource: subresource, Name: name},
		}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(fmt.Errorf("ask for the rights of %s: %w", user, err))
		}
		return review.Status.Allowed
	}
	return ask("approve", "signers", "", "issuers.cert-manager.io/*") && ask("update", "certificaterequests", "status", "")
}
