package e2e

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer/controller/audit"
	"github.com/mayfly-csi/mayfly/signer/controller/review"
)

// policyOwned is a security engineer, with no rights but those that the work needs, who writes a policy, sees what it would deny, applies it, mends it for a
// tenant who was denied, and asks the audit record.
func policyOwned(s *story) {
	s.controlled()
	e := s.engineer()
	// The last story's controller had no right any more to give the Lease back.
	s.until("a controller to hold the Lease, who records certificates", func(context.Context) error {
		if !slices.ContainsFunc(e.records(), func(r audit.Record) bool { return r.Audit == audit.Gap }) {
			return errors.New("none says since when there is no record")
		}
		return nil
	})
	s.start(pod("web", own()), pod("till", own("key-algorithm=RSA", "key-size=2048")))

	const strict = `allow: {ownNames: true, dnsNames: [shop.test]}, limits: {keys: [{algorithm: ECDSA}]}`
	report, code := e.check(strict)
	if code != 1 || len(report.Denials) != 1 || report.Denials[0].Pod != "till" || !strings.Contains(report.Denials[0].Message, "RSA") {
		s.Errorf("exit code %d, %+v", code, report)
	}
	e.apply(strict)

	s.create(pod("shop", own("dns-names=shop.test,www.shop.test")))
	s.create(pod("rogue", own("dns-names=bank.test")))
	s.says("shop", "FailedMount", "NotAllowed: ", `DNS name "www.shop.test" is not allowed: `, "shop.test", s.namespace)
	s.says("rogue", "FailedMount", `DNS name "bank.test" is not allowed: `)

	const mended = `allow: {ownNames: true, dnsNames: [shop.test, "*.shop.test"]}, limits: {keys: [{algorithm: ECDSA}, {algorithm: RSA, minSize: 2048}]}`
	report, code = e.check(mended)
	var allowed []string
	for _, a := range report.Approvals {
		allowed = append(allowed, a.Pod)
	}
	if slices.Sort(allowed); code != 0 || len(report.Denials) > 0 || !slices.Equal(allowed, []string{"shop", "till"}) {
		s.Errorf("exit code %d, %+v", code, report)
	}
	e.apply(mended)
	applied := time.Now()
	s.ready("shop")
	if took := time.Since(applied); took > 10*time.Second {
		s.Errorf("the pod was ready %s after the policy was mended", took)
	} else {
		s.Logf("the pod was ready %s after the policy was mended", took.Round(100*time.Millisecond))
	}

	leaf := s.leaf("shop")
	s.until("the audit record to answer", func(context.Context) error {
		records := e.records()
		return errors.Join(s.answersForShop(records, leaf), s.answersForRogue(records))
	})
}

// answersForShop demands that the record says why the pod was denied, by which policy it was then allowed, and what it got, when, from whom.
func (s *story) answersForShop(records []audit.Record, leaf *x509.Certificate) error {
	shop := s.ready("shop")
	var denied, approved, certificate *audit.Record
	for i, r := range records {
		switch {
		case r.UID != shop.UID:
		case r.Decision == audit.Denied:
			denied = &records[i]
		case r.Audit == audit.Certificate:
			certificate = &records[i]
		default:
			approved = &records[i]
		}
	}
	if denied == nil || approved == nil || certificate == nil {
		return fmt.Errorf("the record has %v, %v and %v", denied, approved, certificate)
	}
	if !strings.Contains(denied.Message, "www.shop.test") || !slices.Equal(denied.Policy, []string{s.namespace}) || !slices.Equal(approved.Policy, denied.Policy) {
		s.Errorf("denied: %+v; approved: %+v", *denied, *approved)
	}
	content, validity := audit.OfCertificate(leaf)
	if got := certificate; got.Validity != validity || got.KeySHA256 != content.KeySHA256 || !slices.Equal(got.DNSNames, []string{"shop.test", "www.shop.test"}) {
		s.Errorf("%+v is not on record, which has %+v", validity, *got)
	}
	if got := certificate; got.Node != shop.Spec.NodeName || got.ServiceAccount != "default" || *got.Issuer != (audit.Issuer{Group: "cert-manager.io", Kind: "Issuer", Name: "ca"}) {
		s.Errorf("%+v", *got)
	}
	if !denied.Time.Before(approved.Time) || !approved.Time.Before(certificate.Time) {
		s.Errorf("denied %s, approved %s, certificate %s", denied.Time, approved.Time, certificate.Time)
	}
	return nil
}

// answersForRogue demands that the record says why the pod got nothing, and that it got nothing.
func (s *story) answersForRogue(records []audit.Record) error {
	denials := 0
	for _, r := range records {
		switch {
		case r.Namespace != s.namespace || r.Name != "rogue":
		case r.Decision == audit.Denied && r.Reason == "NotAllowed" && strings.Contains(r.Message, `DNS name "bank.test" is not allowed`):
			denials++
		default:
			s.Errorf("%+v", r)
		}
	}
	if denials == 0 {
		return errors.New("the record does not say why pod rogue got nothing")
	}
	return nil
}

// An engineer has a kubeconfig, and the program on a laptop.
type engineer struct {
	*story
	kubeconfig, program, file string
}

// engineer makes one who may write CertificatePolicies, read what `policy check` looks at (docs/controller.md), and the controller's output.
func (s *story) engineer() engineer {
	s.Helper()
	const user = "security-engineer"
	s.granted(user, []rbacv1.PolicyRule{
		{APIGroups: []string{"csi.mayfly.dev"}, Resources: []string{"certificatepolicies"}, Verbs: []string{"*"}},
		{APIGroups: []string{""}, Resources: []string{"pods", "nodes"}, Verbs: []string{"list"}},
		{APIGroups: []string{""}, Resources: []string{"pods/log"}, Verbs: []string{"get"}},
	})
	text, err := shared.UserKubeconfig(user)
	if err != nil {
		s.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "engineer-")
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = os.RemoveAll(dir) })
	e := engineer{s, filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "mayfly-controller"), filepath.Join(dir, "policy.yaml")}
	if err := os.WriteFile(e.kubeconfig, text, 0o600); err != nil {
		s.Fatal(err)
	}
	build := exec.CommandContext(s.Context(), "go", "build", "-o", e.program, "./cmd/mayfly-controller")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		s.Fatalf("%v: %s", err, out)
	}
	return e
}

// granted gives a user rights in the whole cluster until the story ends.
func (s *story) granted(user string, rules []rbacv1.PolicyRule) {
	s.Helper()
	rbac, meta := shared.Client.RbacV1(), metav1.ObjectMeta{Name: user}
	s.Cleanup(func() {
		ctx := context.Background()
		err := rbac.ClusterRoleBindings().Delete(ctx, user, metav1.DeleteOptions{})
		if err := errors.Join(err, rbac.ClusterRoles().Delete(ctx, user, metav1.DeleteOptions{})); err != nil {
			s.Error(err)
		}
	})
	_, err := rbac.ClusterRoles().Create(s.Context(), &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	_, err = rbac.ClusterRoleBindings().Create(s.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: user},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: user}},
	}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
}

// run runs a program with the engineer's kubeconfig, and returns what it prints and its exit code.
func (e engineer) run(program string, args ...string) (out []byte, code int) {
	e.Helper()
	cmd := exec.CommandContext(e.Context(), program, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+e.kubeconfig)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		e.Fatal(err)
	}
	if stderr.Len() > 0 {
		e.Logf("%s %v: %s", filepath.Base(program), args, &stderr)
	}
	return out, cmd.ProcessState.ExitCode()
}

// write writes the policy of the story's namespace into the engineer's file.
func (e engineer) write(spec string) {
	e.Helper()
	text := fmt.Sprintf("apiVersion: csi.mayfly.dev/v1alpha1\nkind: CertificatePolicy\nmetadata: {name: %s}\nspec: {namespaces: [%[1]s], %s}\n", e.namespace, spec)
	if err := os.WriteFile(e.file, []byte(text), 0o600); err != nil {
		e.Fatal(err)
	}
}

// check is what `policy check` says of a policy, and its exit code.
func (e engineer) check(spec string) (report review.Report, code int) {
	e.Helper()
	e.write(spec)
	out, code := e.run(e.program, "policy", "check", "--filename="+e.file, "--namespace="+e.namespace, "--output=json")
	if err := json.Unmarshal(out, &report); err != nil {
		e.Fatalf("%v: %s", err, out)
	}
	return report, code
}

// apply applies the policy, which is deleted when the story ends.
func (e engineer) apply(spec string) {
	e.Helper()
	e.Cleanup(func() {
		if _, err := shared.Kubectl(context.Background(), "delete", "--ignore-not-found", "certificatepolicy", e.namespace); err != nil {
			e.Error(err)
		}
	})
	e.write(spec)
	if out, code := e.run(filepath.Join(shared.Bin(), "kubectl"), "apply", "--filename", e.file); code != 0 {
		e.Fatalf("apply: exit code %d: %s", code, out)
	}
}

// records is the audit record, as docs/audit.md says where it is.
func (e engineer) records() (all []audit.Record) {
	e.Helper()
	out, code := e.run(filepath.Join(shared.Bin(), "kubectl"), "--namespace", mayfly, "logs", "--selector=app.kubernetes.io/name=mayfly-controller", "--tail=-1")
	if code != 0 {
		e.Fatalf("logs: exit code %d: %s", code, out)
	}
	for line := range bytes.Lines(out) {
		var r audit.Record
		if json.Unmarshal(line, &r) == nil && r.Audit != "" {
			all = append(all, r)
		}
	}
	return all
}
