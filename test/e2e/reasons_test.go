package e2e

import (
	"context"

	apiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func issuerMissing(s *story) {
	s.create(pod("web", asks("issuer-name=nobody")))
	s.says("web", "FailedMount", "not signed yet", "approved, waiting for Issuer nobody", `issuer.cert-manager.io "nobody" not found`)
	if err := shared.Issuer(s.Context(), s.namespace, "nobody", cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca"}}); err != nil {
		s.Fatal(err)
	}
	s.ready("web")
}

func mistake(s *story) {
	s.create(pod("web", asks("dns-name=web.test", "duration=soon")))
	s.says("web", "FailedMount", `"csi.mayfly.dev/dns-name" is not a known attribute: did you mean csi.mayfly.dev/dns-names?`, `csi.mayfly.dev/duration is "soon", which is not a duration`)
}

func requestDenied(s *story) {
	byHand(s, func() {
		s.create(pod("web"))
		s.requested(1)
		requests := shared.CertManager.CertmanagerV1().CertificateRequests(s.namespace)
		s.until("the request to be denied", func(ctx context.Context) error {
			all, err := requests.List(ctx, metav1.ListOptions{})
			if err != nil {
				return err
			}
			cr := &all.Items[0]
			apiutil.SetCertificateRequestCondition(cr, cmapi.CertificateRequestConditionDenied, cmmeta.ConditionTrue, "policy", "no such name for this team")
			_, err = requests.UpdateStatus(ctx, cr, metav1.UpdateOptions{})
			return err
		})
		s.says("web", "FailedMount", "request denied: CertificateRequest "+s.namespace+"/web-", "no such name for this team")
	})
}

// byHand runs f while nobody approves requests.
func byHand(s *story, f func()) {
	s.Helper()
	if err := shared.Approve(s.Context(), false); err != nil {
		s.Fatal(err)
	}
	defer func() {
		if err := shared.Approve(context.Background(), true); err != nil {
			s.Error(err)
		}
	}()
	f()
}

func rightMissing(s *story) {
	bindings := shared.Client.RbacV1().ClusterRoleBindings()
	binding, err := bindings.Get(s.Context(), "mayfly", metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	if err := bindings.Delete(s.Context(), binding.Name, metav1.DeleteOptions{}); err != nil {
		s.Fatal(err)
	}
	s.create(pod("web"))
	s.says("web", "FailedMount", "request denied: create CertificateRequest", `"system:serviceaccount:mayfly-system:mayfly" cannot create resource "certificaterequests"`)
	binding.ResourceVersion, binding.UID = "", ""
	if _, err := bindings.Create(context.WithoutCancel(s.Context()), binding, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
	s.ready("web")
}
