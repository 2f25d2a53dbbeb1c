package certmanager

import (
	"bytes"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/decision"
	"github.com/mayfly-csi/mayfly/signer/object"
)

// kind returns the description of CertificateRequests.
func kind() decision.Kind[*CertificateRequest] {
	return decision.Kind[*CertificateRequest]{
		Name: "CertificateRequest", Asks: asks, Decide: Decide, State: state,
		Approvable: approvable,
	}
}

// asks reports whether found asks for what wanted asks for.
func asks(found, wanted *CertificateRequest) bool {
	return bytes.Equal(found.Spec.Request, wanted.Spec.Request) &&
		found.Spec.IssuerRef == wanted.Spec.IssuerRef && found.Spec.IsCA == wanted.Spec.IsCA
}

// Decide reads the request's conditions (cert-manager pkg/apis/certmanager/v1/types_certificaterequest.go).
func Decide(cr *CertificateRequest) (issued signer.Issued, err error, decided bool) {
	if c := condition(cr, denied); c != nil && c.Status == metav1.ConditionTrue {
		return issued, refused(signer.Denied, cr, c), true
	}
	c := condition(cr, invalid)
	if c != nil && c.Status == metav1.ConditionTrue {
		return issued, refused(signer.Invalid, cr, c), true
	}
	is := condition(cr, ready)
	switch {
	case is == nil:
	case is.Status == metav1.ConditionTrue && len(cr.Status.Certificate) > 0:
		return signer.Issued{Chain: cr.Status.Certificate, CA: cr.Status.CA}, nil, true
	case is.Reason == reasonFailed:
		return issued, refused(signer.Failed, cr, is), true
	case is.Reason == reasonDenied:
		return issued, refused(signer.Denied, cr, is), true
	}
	return issued, nil, false
}

// approvable reports whether mayfly-controller has denied the request and would approve another one like it.
func approvable(cr *CertificateRequest) bool {
	c := condition(cr, signer.Approvable)
	return c != nil && c.Status == metav1.ConditionTrue
}

// refused returns the error of a condition.
func refused(of signer.Kind, cr *CertificateRequest, c *object.Condition) error {
	return kind().Refusal(of, cr, c.Reason, c.Message)
}

// state returns what an undecided request waits for, in words.
func state(cr *CertificateRequest) string {
	given := condition(cr, approved)
	if given == nil || given.Status != metav1.ConditionTrue {
		return "waiting for its approval"
	}
	issuer := fmt.Sprintf("%s %s", cr.Spec.IssuerRef.Kind, cr.Spec.IssuerRef.Name)
	if is := condition(cr, ready); is != nil && is.Message != "" {
		return fmt.Sprintf("approved, waiting for %s: %s%s", issuer, is.Message, hint(cr, is.Message))
	}
	return fmt.Sprintf("approved, waiting for %s", issuer)
}

// The kinds of cert-manager's own issuers.
const (
	issuerKind        = "Issuer"
	clusterIssuerKind = "ClusterIssuer"
)

// hint returns where an issuer is looked for that does not exist, and what may be meant instead. It knows that by the
// message of cert-manager's condition (pkg/controller/certificaterequests/sync.go, IssuerNotFound).
func hint(cr *CertificateRequest, message string) string {
	kind := cr.Spec.IssuerRef.Kind
	if !strings.HasPrefix(message, fmt.Sprintf("Referenced %q not found", kind)) {
		return ""
	}
	switch kind {
	case issuerKind:
		const format = "; an Issuer is looked for in the pod's namespace, %s: if it is a ClusterIssuer, " +
			"set issuer-kind to %s"
		return fmt.Sprintf(format, cr.Namespace, clusterIssuerKind)
	case clusterIssuerKind:
		const format = "; a ClusterIssuer is in no namespace: if it is an Issuer in the pod's, %s, " +
			"set issuer-kind to %s"
		return fmt.Sprintf(format, cr.Namespace, issuerKind)
	}
	return ""
}

// condition returns the condition of a type; nil if there is none.
func condition(cr *CertificateRequest, t string) *object.Condition {
	for i := range cr.Status.Conditions {
		if cr.Status.Conditions[i].Type == t {
			return &cr.Status.Conditions[i]
		}
	}
	return nil
}
