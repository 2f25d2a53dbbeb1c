package e2e

import (
	"context"
	"path/filepath"
	"strings"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/test/forge"
)

// modePod is a cluster in mode pod until the story ends: the controller first, then the driver.
func (s *story) modePod() {
	s.Helper()
	s.controlled()
	for _, args := range [][]string{{"set", "env", "deployment/mayfly-controller", "MAYFLY_USE_TOKEN_REQUEST=true"}, {"rollout", "status", "deployment/mayfly-controller", "--timeout=2m"}} {
		if _, err := shared.Kubectl(s.Context(), append([]string{"--namespace", mayfly}, args...)...); err != nil {
			s.Fatal(err)
		}
	}
	s.controllers(2)
	s.asThePod()
	const manifests = "../../manifests"
	policies := filepath.Join(manifests, "modes", "pod", "policies.yaml")
	s.Cleanup(func() {
		for _, args := range [][]string{{"delete", "--ignore-not-found", "--filename", policies}, {"apply", "--filename", filepath.Join(manifests, "rbac.yaml")}} {
			if _, err := shared.Kubectl(context.Background(), args...); err != nil {
				s.Error(err)
			}
		}
	})
	if _, err := shared.Kubectl(s.Context(), "apply", "--filename", policies, "--filename", filepath.Join(manifests, "modes", "pod", "rbac.yaml")); err != nil {
		s.Fatal(err)
	}
	s.configure("MAYFLY_USE_TOKEN_REQUEST=true")
	s.Cleanup(func() { s.configure("MAYFLY_USE_TOKEN_REQUEST-") })
}

// asPods is a cluster in mode pod: first cert-manager's own approver stays on, and the policy keeps it from what pods ask for; then that is the other way round.
func asPods(s *story) {
	s.modePod()
	s.deploy(4, own("duration=30s"))
	s.rotate(s.readyPods(4))
	if _, err := s.kubectl("delete", "deployment", "--all"); err != nil {
		s.Fatal(err)
	}
	s.start(pod("web", own()), pod("db", own()))
	web := s.ready("web")
	cr, err := forge.Request(web, "stolen")
	if err != nil {
		s.Fatal(err)
	}
	if got := s.outcome(s.thief(web.Spec.NodeName), cr); !strings.Contains(got, "cannot create resource") {
		s.Errorf("a thief of the driver's token asks: %s", got)
	}
	s.asksForItself("policed")
	byHand(s, func() {
		if _, err := shared.Kubectl(s.Context(), "delete", "validatingadmissionpolicybinding", "mayfly-pod-decisions"); err != nil {
			s.Fatal(err)
		}
		s.asksForItself("alone")
		s.start(pod("late", own()))
		s.ready("late")
	})
}

// asksForItself has pod web ask with its own token for what its volume asks for, and for more.
func (s *story) asksForItself(prefix string) {
	s.Helper()
	web, db := s.ready("web"), s.ready("db")
	token := s.certManager(s.withToken(s.namespace, "default", web))
	for name, row := range map[string]struct {
		change func(*cmapi.CertificateRequest)
		want   string
	}{
		"its volume's": {func(*cmapi.CertificateRequest) {}, "Approved VerifiedByMayfly"},
		"another name": {func(cr *cmapi.CertificateRequest) {
			cr.Spec.Request = s.forged(web, "dns-names=api."+s.namespace+".svc")
		}, "Denied NotTheVolumes: the request is not what volume tls of pod web asks for: DNS names: "},
		"a CA": {func(cr *cmapi.CertificateRequest) { cr.Spec = s.asking(web, "is-ca=true").Spec },
			"Denied NotTheVolumes: the request is not what volume tls of pod web asks for: "},
		"a CA beside the signing request": {func(cr *cmapi.CertificateRequest) { cr.Spec.IsCA = true }, otherUsages},
		"no owner":                        {func(cr *cmapi.CertificateRequest) { cr.OwnerReferences = nil }, "its request must be owned by it"},
		"another's": {func(cr *cmapi.CertificateRequest) {
			cr.OwnerReferences[0] = metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: db.Name, UID: db.UID}
		}, "its request must be owned by it"},
	} {
		cr, err := forge.Request(web, prefix+"-"+strings.NewReplacer(" ", "-", "'", "").Replace(strings.ToLower(name)))
		if err != nil {
			s.Fatal(err)
		}
		row.change(cr)
		if got := s.outcome(token, cr); !strings.Contains(got, row.want) {
			s.Errorf("%s, %s:\n got %s\nwant %s", prefix, name, got, row.want)
		}
	}
}
