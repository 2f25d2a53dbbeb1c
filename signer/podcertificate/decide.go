package podcertificate

import (
	"bytes"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/chain"
	"github.com/mayfly-csi/mayfly/signer/decision"
)

// kind returns the description of PodCertificateRequests.
func kind() decision.Kind[*podCertificateRequest] {
	return decision.Kind[*podCertificateRequest]{
		Name: "PodCertificateRequest", Asks: asks, Decide: decide, State: state,
	}
}

// asks reports whether found asks for what wanted asks for. No spec can be changed, and only we have the key.
func asks(found, wanted *podCertificateRequest) bool {
	return bytes.Equal(found.Spec.StubPKCS10Request, wanted.Spec.StubPKCS10Request)
}

// decide reads the request's conditions: the API server allows one, which never changes
// (kubernetes pkg/apis/certificates/validation, ValidatePodCertificateRequestStatusUpdate).
func decide(r *podCertificateRequest) (answer signer.Issued, err error, decided bool) {
	for _, c := range r.Status.Conditions {
		switch {
		case c.Is(issued):
			return split(r.Status.CertificateChain), nil, true
		case c.Is(denied):
			return answer, kind().Refusal(signer.Denied, r, c.Reason, c.Message), true
		case c.Is(failed):
			return answer, kind().Refusal(signer.Failed, r, c.Reason, c.Message), true
		}
	}
	return answer, nil, false
}

// state returns what an undecided request waits for, in words.
func state(*podCertificateRequest) string { return "waiting for mayfly-controller" }

// split splits the status's one list into the chain and the CA certificates, which are the self-signed ones after the
// leaf; without one, the last certificate of the chain is used as the CA certificate. A text that can't be parsed is
// returned as the chain: the caller checks it.
func split(text string) signer.Issued {
	all, err := chain.Parse([]byte(text))
	if err != nil {
		return signer.Issued{Chain: []byte(text)}
	}
	sent, ca, checks := all[:1:1], chain.Bundle(nil), chain.NewChecks(chain.MaxChecks)
	for _, c := range all[1:] {
		if checks.SelfSigned(c) {
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
