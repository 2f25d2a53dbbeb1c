package podcertificate

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer"
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

// split tells the chain from the CA certificates, for which the status has no place of their own: they are the self-signed ones after the leaf.
// An issuer that knows no such one is known by the last certificate of its chain.
func split(text string) signer.Issued {
	certificates := blocks(text)
	if len(certificates) == 0 {
		return signer.Issued{Chain: []byte(text)}
	}
	chain, ca := certificates[:1:1], []*pem.Block(nil)
	for _, c := range certificates[1:] {
		if selfSigned(c) {
			ca = append(ca, c)
		} else {
			chain = append(chain, c)
		}
	}
	if len(ca) == 0 && len(chain) > 1 {
		ca = chain[len(chain)-1:]
	}
	return signer.Issued{Chain: encode(chain), CA: encode(ca)}
}

// selfSigned goes by the names and the signature; by the names alone where Go checks none with the algorithm, as it does not for roots of old.
func selfSigned(b *pem.Block) bool {
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil || !bytes.Equal(c.RawSubject, c.RawIssuer) {
		return false
	}
	err = c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
	return err == nil || errors.Is(err, x509.ErrUnsupportedAlgorithm) || errors.As(err, new(x509.InsecureAlgorithmError))
}

func blocks(text string) (all []*pem.Block) {
	for rest := []byte(text); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return all
		}
		all = append(all, b)
	}
}

func encode(all []*pem.Block) (text []byte) {
	for _, b := range all {
		text = append(text, pem.EncodeToMemory(b)...)
	}
	return text
}
