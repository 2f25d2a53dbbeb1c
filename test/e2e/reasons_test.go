package e2e

import (
	"context"
	"strings"
	"time"

	apiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	cmclient "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
)

func issuerMissing(s *story) {
	s.create(pod("web", asks("issuer-name=nobody")))
	s.says("web", "FailedMount", "not signed yet", "approved, waiting for Issuer nobody", `issuer.cert-manager.io "nobody" not found`,
		"an Issuer is looked for in the pod's namespace, "+s.namespace+": if it is a ClusterIssuer, set issuer-kind to ClusterIssuer")
	if err := shared.Issuer(s.Context(), s.namespace, "nobody", cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca"}}); err != nil {
		s.Fatal(err)
	}
	s.ready("web")
}

// issuerGone: an issuer goes while its pods run. Each of them is sent an Event at the moment its certificate ends, a pod of another issuer
// never notices, and once the issuer is back all have certificates again.
func issuerGone(s *story) {
	const name = "passing"
	ca := cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca"}}
	if err := shared.Issuer(s.Context(), s.namespace, name, ca); err != nil {
		s.Fatal(err)
	}
	left := []string{"left-0", "left-1", "left-2", "left-3", "left-4"}
	pods := []*corev1.Pod{pod("kept", asks("duration=1m"))}
	for _, p := range left {
		pods = append(pods, pod(p, asks("issuer-name="+name, "duration=1m")))
	}
	s.start(pods...)
	if err := shared.CertManager.CertmanagerV1().Issuers(s.namespace).Delete(s.Context(), name, metav1.DeleteOptions{}); err != nil {
		s.Fatal(err)
	}
	for _, p := range left {
		s.says(p, "CertificateExpired", "before it was renewed; a request for the next one is under way")
		s.toldInTime(p)
	}
	if err := shared.Issuer(s.Context(), s.namespace, name, ca); err != nil {
		s.Fatal(err)
	}
	for _, p := range left {
		s.renewedSoon(p)
		s.says(p, "CertificateRenewed", "the certificate was renewed; the one before ended at")
	}
	if n := s.untroubled("kept"); n < 2 {
		s.Errorf("the pod of another issuer has seen %d certificates", n)
	}
}

// toldInTime demands that the pod's Event of the end of a certificate was sent when that ended.
func (s *story) toldInTime(pod string) {
	s.Helper()
	events, err := shared.Client.CoreV1().Events(s.namespace).List(s.Context(), metav1.ListOptions{
		FieldSelector: "involvedObject.name=" + pod + ",reason=CertificateExpired",
	})
	if err != nil || len(events.Items) != 1 {
		s.Fatalf("%d events (%v)", len(events.Items), err)
	}
	text, sent := events.Items[0].Message, events.Items[0].FirstTimestamp.Time
	words := strings.Fields(text)
	end, err := time.Parse(time.RFC3339, strings.TrimRight(words[7], ","))
	if err != nil {
		s.Fatalf("%v in %s", err, text)
	}
	if late := sent.Sub(end); late < 0 || late > 10*time.Second {
		s.Errorf("pod %s was told %s after the end: %s", pod, late, text)
	}
}

func mistake(s *story) {
	s.create(pod("web", asks("dns-name=web.test", "duration=soon")))
	s.says("web", "FailedMount", `"csi.mayfly.dev/dns-name" is not a known attribute: did you mean csi.mayfly.dev/dns-names?`, `csi.mayfly.dev/duration is "soon", which is not a duration`)
}

func requestDenied(s *story) {
	byHand(s, func() {
		s.create(pod("web"))
		s.requested(1)
		s.webhookWorks()
		s.until("the request to be denied", func(ctx context.Context) error {
			return s.decide(ctx, shared.CertManager, cmapi.CertificateRequestConditionDenied, "no such name for this team")
		})
		s.says("web", "FailedMount", "request denied: CertificateRequest "+s.namespace+"/web-", "no such name for this team")
	})
}

// decide sets a condition of the namespace's first request, as an approver does.
func (s *story) decide(ctx context.Context, as cmclient.Interface, condition cmapi.CertificateRequestConditionType, message string) error {
	requests, err := shared.CertManager.CertmanagerV1().CertificateRequests(s.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	cr := &requests.Items[0]
	apiutil.SetCertificateRequestCondition(cr, condition, cmmeta.ConditionTrue, "policy", message)
	_, err = as.CertmanagerV1().CertificateRequests(s.namespace).UpdateStatus(ctx, cr, metav1.UpdateOptions{})
	return err
}

// webhookWorks demands what cert-manager's webhook does for the namespace's first request: it has the caller stamped on it, and nobody approves it
// without the right to.
func (s *story) webhookWorks() {
	s.Helper()
	requests, err := shared.CertManager.CertmanagerV1().CertificateRequests(s.namespace).List(s.Context(), metav1.ListOptions{})
	if err != nil || len(requests.Items) == 0 {
		s.Fatalf("%d requests (%v)", len(requests.Items), err)
	}
	if got := requests.Items[0].Spec.Username; got != "system:serviceaccount:"+mayfly+":mayfly" {
		s.Errorf("the request is by %q", got)
	}
	meddler, err := s.withRights("meddler", "certificaterequests", "certificaterequests/status")
	if err != nil {
		s.Fatal(err)
	}
	err = s.decide(s.Context(), meddler, cmapi.CertificateRequestConditionApproved, "why not")
	if err == nil || !strings.Contains(err.Error(), "does not have permissions to set approved/denied conditions") {
		s.Errorf("an approval without the right to: %v", err)
	}
}

// withRights is a client for a user who may do everything with some resources of cert-manager in the namespace, and nothing else.
func (s *story) withRights(user string, resources ...string) (cmclient.Interface, error) {
	meta := metav1.ObjectMeta{Name: user, Namespace: s.namespace}
	rbac := shared.Client.RbacV1()
	_, err := rbac.Roles(s.namespace).Create(s.Context(), &rbacv1.Role{
		ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{APIGroups: []string{"cert-manager.io"}, Resources: resources, Verbs: []string{"*"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	_, err = rbac.RoleBindings(s.namespace).Create(s.Context(), &rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: user},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: user}},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	text, err := shared.UserKubeconfig(user)
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(text)
	if err != nil {
		return nil, err
	}
	return cmclient.NewForConfig(config)
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
	again := binding.DeepCopy()
	again.ResourceVersion, again.UID = "", ""
	restore := func() error {
		_, err := bindings.Create(context.WithoutCancel(s.Context()), again, metav1.CreateOptions{})
		return err
	}
	defer mayBeRefused()()
	s.Cleanup(func() { _ = restore() }) // Which has been done, if all went well.
	if err := bindings.Delete(s.Context(), binding.Name, metav1.DeleteOptions{}); err != nil {
		s.Fatal(err)
	}
	s.create(pod("web"))
	s.says("web", "FailedMount", "request denied: create CertificateRequest", `"system:serviceaccount:mayfly-system:mayfly" cannot create resource "certificaterequests"`)
	if err := restore(); err != nil {
		s.Fatal(err)
	}
	given := time.Now()
	s.ready("web")
	s.Logf("the pod was ready %s after the right was given", time.Since(given).Round(time.Second))
}
