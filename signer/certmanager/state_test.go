package certmanager

import (
	"encoding/json"
	"testing"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
)

// What a request waits for: of an issuer that does not exist it says where it is looked for, and what may be meant.
func TestWhatARequestWaitsFor(t *testing.T) {
	const approved, ready = cmapi.CertificateRequestConditionApproved, cmapi.CertificateRequestConditionReady
	for name, row := range map[string]struct {
		kind       string
		conditions []cmapi.CertificateRequestCondition
		want       string
	}{
		"its approval": {"Issuer", nil, "waiting for its approval"},
		"its issuer": {"Issuer", []cmapi.CertificateRequestCondition{{Type: approved, Status: cmmeta.ConditionTrue}},
			"approved, waiting for Issuer corp"},
		"an Issuer that does not exist": {"Issuer", []cmapi.CertificateRequestCondition{
			{Type: approved, Status: cmmeta.ConditionTrue},
			{Type: ready, Status: cmmeta.ConditionFalse, Reason: "Pending", Message: `Referenced "Issuer" not found: issuer.cert-manager.io "corp" not found`},
		}, `approved, waiting for Issuer corp: Referenced "Issuer" not found: issuer.cert-manager.io "corp" not found; ` +
			"an Issuer is looked for in the pod's namespace, shop: if it is a ClusterIssuer, set issuer-kind to ClusterIssuer"},
		"a ClusterIssuer that does not exist": {"ClusterIssuer", []cmapi.CertificateRequestCondition{
			{Type: approved, Status: cmmeta.ConditionTrue},
			{Type: ready, Status: cmmeta.ConditionFalse, Reason: "Pending", Message: `Referenced "ClusterIssuer" not found: clusterissuer.cert-manager.io "corp" not found`},
		}, `approved, waiting for ClusterIssuer corp: Referenced "ClusterIssuer" not found: clusterissuer.cert-manager.io "corp" not found; ` +
			"a ClusterIssuer is in no namespace: if it is an Issuer in the pod's, shop, set issuer-kind to Issuer"},
		"a Secret that does not exist": {"Issuer", []cmapi.CertificateRequestCondition{
			{Type: approved, Status: cmmeta.ConditionTrue},
			{Type: ready, Status: cmmeta.ConditionFalse, Reason: "Pending", Message: `Referenced secret shop/corp not found: secret "corp" not found`},
		}, `approved, waiting for Issuer corp: Referenced secret shop/corp not found: secret "corp" not found`},
		"an issuer of another API": {"AWSPCAIssuer", []cmapi.CertificateRequestCondition{
			{Type: approved, Status: cmmeta.ConditionTrue},
			{Type: ready, Status: cmmeta.ConditionFalse, Reason: "Pending", Message: `Referenced "AWSPCAIssuer" not found`},
		}, `approved, waiting for AWSPCAIssuer corp: Referenced "AWSPCAIssuer" not found`},
	} {
		cr := &cmapi.CertificateRequest{}
		cr.Namespace, cr.Spec.IssuerRef.Kind, cr.Spec.IssuerRef.Name, cr.Status.Conditions = "shop", row.kind, "corp", row.conditions
		if got := state(read(t, cr)); got != row.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, row.want)
		}
	}
}

// read is a request of cert-manager's type as it is read here.
func read(t *testing.T, from *cmapi.CertificateRequest) *CertificateRequest {
	t.Helper()
	text, err := json.Marshal(from)
	if err != nil {
		t.Fatal(err)
	}
	cr := &CertificateRequest{}
	if err := json.Unmarshal(text, cr); err != nil {
		t.Fatal(err)
	}
	return cr
}
