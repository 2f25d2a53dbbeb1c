package podcertificate

import (
	"bytes"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/chain"
	"github.com/mayfly-csi/mayfly/signer/decision"
)

// kind is what is known of PodCertificateRequests.
func kind() decision.Kind[*certificatesv1.PodCertificateRequest] {
	return decision.Kind[*certificatesv1.PodCertificateRequest]{Name: "PodCertificateRequest", Asks: asks, Decide: decide, State: state}
}

// asks reports whether found asks for what we asked for. No spec can be changed, and nobody else has the key.
func asks(found, wanted *certificatesv1.PodCertificateRequest) bool {
	return bytes.Equal(found.Spec.StubPKCS10Request, wanted.Spec.StubPKCS10Request)
}

// decide reads the request's conditions, of which the API server lets there be one, and none change
// (kubernetes pkg/apis/certificates/validation, ValidatePodCertificateRequestStatusUpdate).
func decide(r *certificatesv1.PodCertificateRequest) (issued signer.Issued, err error, decided bool) {
	for _, c := range r.Status.Conditions {
		if c.Status != metav1.ConditionTrue {
			continue
		}
		switch c.Type {
		case certificatesv1.PodCertificateRequestConditionTypeIssued:
			return split(r.Status.CertificateChain), nil, true
		case certificatesv1.PodCertificateRequestConditionTypeDenied:
			return issued, kind().Refused(signer.Denied, r, c.Reason, c.Message), true
		case certificatesv1.PodCertificateRequestConditionTypeFailed:
			return issued, kind().Refused(signer.Failed, r, c.Reason, c.Message), true
		}
	}
	return issued, nil, false
}

// state is what an undecided request waits for, in words.
func state(*certificatesv1.PodCertificateRequest) string { return "waiting for mayfly-controller" }

// split tells the chain from the CA certificates, for which the status has no place of their own: they are the
// self-signed ones after the leaf. An issuer that knows no such one is known by the last certificate of its chain. A
// text that can't be read stays as it is, for who checks the answer.
func split(text string) signer.Issued {
	all, err := chain.Parse([]byte(text))
	if err != nil {
		return signer.Issued{Chain: []byte(text)}
	}
	sent, ca := all[:1:1], chain.Bundle(nil)
	for _, c := range all[1:] {
		if c.SelfSigned() {
			ca = append(ca, c)
		} else {
			sent = append(sent, c)
		}
	}
	if len(ca) == 0 && len(sent) > 1 {
		ca = sent[len(sent)-1:]
	}
	return signer.Issued{Chain: sent.Encode(), CA: ca.Encode()}
}
