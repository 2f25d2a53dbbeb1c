// Package local is a signer with a CA of its own, for demonstrations, tests and single nodes. It needs no Kubernetes.
//
// It makes its CA on first use, and stores the key in a file. It signs every request.
package local

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/ca"
)

// backdate is how long before now a certificate begins, so that clocks that are behind accept it at once.
const backdate = 5 * time.Minute

// A Signer signs with one CA. It implements [signer.Signer].
type Signer struct{ ca ca.CA }

// Sign implements [signer.Signer]. It never waits.
func (s *Signer) Sign(ctx context.Context, req signer.Request) (signer.Issued, error) {
	if err := ctx.Err(); err != nil {
		return signer.Issued{}, signer.Errorf(signer.Unavailable, "sign with the local CA: %w", err)
	}
	now := time.Now()
	template, err := s.template(req, now)
	if err != nil {
		return signer.Issued{}, signer.Errorf(signer.Invalid, "sign with the local CA: %w", err)
	}
	issued, err := s.ca.Sign(template)
	if err != nil {
		return signer.Issued{}, signer.Errorf(signer.Failed, "sign with the local CA: %w", err)
	}
	return issued, nil
}

// template returns the certificate that the request asks for. It ends no later than the CA.
func (s *Signer) template(req signer.Request, now time.Time) (*x509.Certificate, error) {
	csr, err := x509.ParseCertificateRequest(req.CSR)
	if err != nil {
		return nil, fmt.Errorf("read the signing request: %w", err)
	}
	template, err := ca.Template(csr, req.Usages, req.IsCA)
	if err != nil {
		return nil, err
	}
	template.NotBefore, template.NotAfter = now.Add(-backdate), now.Add(req.Duration)
	if end := s.ca.Certificate.NotAfter; template.NotAfter.After(end) {
		template.NotAfter = end
	}
	if !template.NotAfter.After(now) {
		return nil, fmt.Errorf("the CA or the wanted duration of %s is over", req.Duration)
	}
	return template, nil
}
