package certmanager

import (
	"bytes"
	"fmt"
	"strings"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/decision"
)

// kind returns the description of CertificateRequests.
func kind() decision.Kind[*cmapi.CertificateRequest] {
	return decision.Kind[*cmapi.CertificateRequest]{
		Name: "CertificateRequest", Asks: asks, Decide: Decide, State: state,
		Approvable: approvable,
	}
}

// asks reports whether found asks for what wanted asks for.
func asks(found, wanted *cmapi.CertificateRequest) bool {
	return bytes.Equal(found.Spec.Request, wanted.Spec.Request) &&
		found.Spec.IssuerRef == wanted.Spec.IssuerRef && found.Spec.IsCA == wanted.Spec.IsCA
}

// Decide reads the request's conditions (cert-manager pkg/apis/certmanager/v1/types_certificaterequest.go).
func Decide(cr *cmapi.CertificateRequest) (issued signer.Issued, err error, decided bool) {
	if c := condition(cr, cmapi.CertificateRequestConditionDenied); c != nil && c.Status == cmmeta.ConditionTrue {
		return issued, refused(signer.Denied, cr, c), true
	}
	c := condition(cr, cmapi.CertificateRequestConditionInvalidRequest)
	if c != nil && c.Status == cmmeta.ConditionTrue {
		return issued, refused(signer.Invalid, cr, c), true
	}
	ready := condition(cr, cmapi.CertificateRequestConditionReady)
	switch {
	case ready == nil:
	case ready.Status == cmmeta.ConditionTrue && len(cr.Status.Certificate) > 0:
		return signer.Issued{Chain: cr.Status.Certificate, CA: cr.Status.CA}, nil, true
	case ready.Reason == cmapi.CertificateRequestReasonFailed:
		return issued, refused(signer.Failed, cr, ready), true
	case ready.Reason == cmapi.CertificateRequestReasonDenied:
		return issued, refused(signer.Denied, cr, ready), true
	}
	return issued, nil, false
}

// approvable reports whether mayfly-controller has denied the request and would approve another one like it.
func approvable(cr *cmapi.CertificateRequest) bool {
	c := condition(cr, signer.Approvable)
	return c != nil && c.Status == cmmeta.ConditionTrue
}

// refused returns the error of a condition.
func refused(of signer.Kind, cr *cmapi.CertificateRequest, c *cmapi.CertificateRequestCondition) error {
	return kind().Refusal(of, cr, c.Reason, c.Message)
}

// state returns what an undecided request waits for, in words.
func state(cr *cmapi.CertificateRequest) string {
	approved := condition(cr, cmapi.CertificateRequestConditionApproved)
	if approved == nil || approved.Status != cmmeta.ConditionTrue {
		return "waiting for its approval"
	}
	issuer := fmt.Sprintf("%s %s", cr.Spec.IssuerRef.Kind, cr.Spec.IssuerRef.Name)
	if ready := condition(cr, cmapi.CertificateRequestConditionReady); ready != nil && ready.Message != "" {
		return fmt.Sprintf("approved, waiting for %s: %s%s", issuer, ready.Message, hint(cr, ready.Message))
	}
	return fmt.Sprintf("approved, waiting for %s", issuer)
}

// hint returns where an issuer is looked for that does not exist, and what may be meant instead. It knows that by the
// message of cert-manager's condition (pkg/controller/certificaterequests/sync.go, IssuerNotFound).
func hint(cr *cmapi.CertificateRequest, message string) string {
	kind := cr.Spec.IssuerRef.Kind
	if !strings.HasPrefix(message, fmt.Sprintf("Referenced %q not found", kind)) {
		return ""
	}
	switch kind {
	case cmapi.IssuerKind:
		const format = "; an Issuer is looked for in the pod's namespace, %s: if it is a ClusterIssuer, set issuer-kind to %s"
		return fmt.Sprintf(format, cr.Namespace, cmapi.ClusterIssuerKind)
	case cmapi.ClusterIssuerKind:
		const format = "; a ClusterIssuer is in no namespace: if it is an Issuer in the pod's, %s, set issuer-kind to %s"
		return fmt.Sprintf(format, cr.Namespace, cmapi.IssuerKind)
	}
	return ""
}

// condition returns the condition of a type; nil if there is none.
func condition(
	cr *cmapi.CertificateRequest, t cmapi.CertificateRequestConditionType,
) *cmapi.CertificateRequestCondition {
	for i := range cr.Status.Conditions {
		if cr.Status.Conditions[i].Type == t {
			return &cr.Status.Conditions[i]
		}
	}
	return nil
}
