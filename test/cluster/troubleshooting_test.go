package cluster_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"google.golang.org/grpc/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/test/faults"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// TestTroubleshootingOfTheCluster makes the faults of docs/troubleshooting.md that are the API server's, cert-manager's
// and their objects'. The error of a call is what the kubelet writes into the pod's events.
func TestTroubleshootingOfTheCluster(t *testing.T) {
	made := &madeFaults{t: t}
	n := newNode(t, namespace(t))
	_, err := shared.CertManager.CertmanagerV1().Issuers(n.namespace).Create(t.Context(), &cmapi.Issuer{
		ObjectMeta: metav1.ObjectMeta{Name: "not-ready"},
		Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "nobody"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range []struct{ message, attribute string }{
		{"not signed yet: CertificateRequest …: approved, waiting for Issuer …: Referenced \"Issuer\" not found: issuer.cert-manager.io \"…\" not found; an Issuer is looked for in the pod's namespace, …: if it is a ClusterIssuer, set issuer-kind to ClusterIssuer", "issuer-name=nobody"},
		{"not signed yet: CertificateRequest …: approved, waiting for ClusterIssuer …: Referenced \"ClusterIssuer\" not found: clusterissuer.cert-manager.io \"…\" not found; a ClusterIssuer is in no namespace: if it is an Issuer in the pod's, …, set issuer-kind to Issuer", "issuer-kind=ClusterIssuer"},
		{"not signed yet: CertificateRequest …: approved, waiting for Issuer …: Referenced issuer does not have a Ready status condition", "issuer-name=not-ready"},
		{"signing failed: CertificateRequest …: Failed: Annotation \"cert-manager.io/private-key-secret-name\" missing or reference empty: secret name missing", "issuer-name=self-signed"},
		{"trust source cluster-trust-bundle:…: ClusterTrustBundle … not found", "trust=cluster-trust-bundle:nobody"},
		{"trust source config-map:…: configmaps \"…\" is forbidden: User \"…\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"…\" (manifests/options/config-maps.yaml grants it)", "trust=config-map:corp/ca.crt"},
		{"not signed yet: read pod …: pods \"…\" is forbidden: User \"…\" cannot list resource \"pods\" in API group \"\" in the namespace \"…\"", "ip-sans=${POD_IP}"},
	} {
		made.by(n, fault.message, fault.attribute)
	}
	byHand(t, func() {
		v := n.pod("undecided")
		made.says(n, v, "not signed yet: CertificateRequest …: waiting for its approval")
		until(t, "the request is there", func() bool { return len(n.requests()) == 1 })
		cr := n.requests()[0]
		n.decide(&cr, cmapi.CertificateRequestConditionDenied, cmmeta.ConditionTrue, "policy", "no such name for this team")
		made.says(n, v, "request denied: CertificateRequest …: …")
		n.unpublish(v)
	})
	made.ended(n,
		"…; the next try is at …; the pod keeps its certificate, which ended at …",
		"the pod's certificate ended at …, before it was renewed…")
	made.withFlags(n, "read the driver's profiles from ConfigMap …: …", "--config-map=mayfly-system/mayfly")
	made.withFlags(n, `request denied: read service account …: serviceaccounts "…" is forbidden: User "…" cannot … resource "serviceaccounts" in API group "" in the namespace "…": a token that is bound to a pod on node … may impersonate it, and no other`, "--signer=pod-certificate")
	n.kubeconfig = nobody(t)
	made.withFlags(n, "request denied: create CertificateRequest …: certificaterequests.cert-manager.io is forbidden: User \"…\" cannot create resource \"certificaterequests\" in API group \"cert-manager.io\" in the namespace \"…\"")
	n.kubeconfig = shared.plugin
	n.end(syscall.SIGTERM)
	n.args = nil
	n.start()
	made.withoutAPI(n, "signer unavailable: create CertificateRequest …: the API server did not answer: …")
	faults.Hold(t, troubleshooting, t.Name(), made.messages)
}

// troubleshooting has the messages of the faults.
const troubleshooting = "../../docs/troubleshooting.md"

// madeFaults are the messages of the faults that have been made.
type madeFaults struct {
	t        *testing.T
	messages []string
}

// says calls until the answer is the message.
func (m *madeFaults) says(n *node, v kubelet.Volume, message string) {
	m.t.Helper()
	m.messages = append(m.messages, message)
	got := ""
	defer func() { m.t.Logf("%s: %s", v.Pod.Name, got) }()
	until(m.t, "pod "+v.Pod.Name+" says "+message, func() bool {
		ctx, cancel := context.WithTimeout(m.t.Context(), 7*time.Second) // The driver answers three seconds before.
		defer cancel()
		_, err := n.Publish(ctx, n.driver, v)
		got = faults.Reason(status.Convert(err).Message())
		return faults.Match(message, got)
	})
}

// by makes the fault of a pod that asks for this.
func (m *madeFaults) by(n *node, message, attribute string) {
	m.t.Helper()
	v := n.pod(fmt.Sprintf("web-%d", len(m.messages)), attribute)
	m.says(n, v, message)
	n.unpublish(v)
}

// withFlags makes the fault of a pod on a node whose driver has these flags.
func (m *madeFaults) withFlags(n *node, message string, flags ...string) {
	m.t.Helper()
	n.end(syscall.SIGTERM)
	n.args = flags
	n.start()
	v := n.pod(fmt.Sprintf("flags-%d", len(m.messages)))
	m.says(n, v, message)
	n.unpublish(v)
}

// withoutAPI makes the fault of a pod that starts while the API server is away.
func (m *madeFaults) withoutAPI(n *node, message string) {
	m.t.Helper()
	v := n.pod("early")
	m.t.Cleanup(func() { // Which has been done, if all went well.
		if err := shared.StartAPI(context.WithoutCancel(m.t.Context())); err != nil {
			m.t.Error(err)
		}
	})
	if err := shared.ControlPlane.Stop(m.t.Context(), "kube-apiserver"); err != nil {
		m.t.Fatal(err)
	}
	m.says(n, v, message)
	n.unpublish(v)
	if err := shared.StartAPI(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
}

// ended makes the faults of a pod whose issuer goes: the events of a renewal that fails, and of the certificate's end.
func (m *madeFaults) ended(n *node, notRenewed, expired string) {
	m.t.Helper()
	v := n.pod("ended", "duration=20s")
	n.publish(v)
	if err := shared.CertManager.CertmanagerV1().Issuers(n.namespace).Delete(m.t.Context(), "ca", metav1.DeleteOptions{}); err != nil {
		m.t.Fatal(err)
	}
	m.event(n, "CertificateExpired", expired)
	m.event(n, "CertificateNotRenewed", notRenewed) // After a minute's wait for the issuer, and five more tries.
	n.unpublish(v)
}

// event waits for an event of the pod with the message.
func (m *madeFaults) event(n *node, reason, message string) {
	m.t.Helper()
	m.messages = append(m.messages, message)
	until(m.t, "an event "+reason+": "+message, func() bool {
		events, err := shared.Client.CoreV1().Events(n.namespace).List(m.t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=ended,reason=" + reason})
		if err != nil {
			m.t.Fatal(err)
		}
		for _, e := range events.Items {
			if m.t.Logf("%s", e.Message); faults.Match(message, faults.Reason(e.Message)) {
				return true
			}
		}
		return false
	})
}

// nobody is the kubeconfig of a user without rights.
func nobody(t *testing.T) string {
	t.Helper()
	text, err := shared.UserKubeconfig("nobody")
	if err != nil {
		t.Fatal(err)
	}
	return write(t, text)
}
