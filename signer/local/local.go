// Package local is a signer with a CA of its own, for demonstrations, tests and single nodes: no Kubernetes is needed.
//
// Its CA key lies in a file that it makes on first use. It signs whatever it is asked for.
package local

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/mayfly-csi/mayfly/signer"
)

// backdate is how long before now a certificate begins: clocks that are behind accept it at once.
const backdate = 5 * time.Minute

// A Signer signs with one CA. It implements [signer.Signer].
type Signer struct {
	ca    *x509.Certificate
	chain []byte // The CA in PEM.
	key   crypto.Signer
}

// Sign implements [signer.Signer]. It never waits.
func (s *Signer) Sign(ctx context.Context, req signer.Request) (signer.Issued, error) {
	if err := ctx.Err(); err != nil {
		return signer.Issued{}, signer.Errorf(signer.Unavailable, "sign with the local CA: %w", err)
	}
	template, err := s.template(req, time.Now())
	if err != nil {
		return signer.Issued{}, signer.Errorf(signer.Invalid, "sign with the local CA: %w", err)
	}
	leaf, err := x509.CreateCertificate(rand.Reader, template, s.ca, template.PublicKey, s.key)
	if err != nil {
		return signer.Issued{}, signer.Errorf(signer.Failed, "sign with the local CA: %w", err)
	}
	return signer.Issued{Chain: certificatePEM(leaf), CA: s.chain}, nil
}

// template is the certificate that the request asks for. It ends no later than the CA.
func (s *Signer) template(req signer.Request, now time.Time) (*x509.Certificate, error) {
	csr, err := x509.ParseCertificateRequest(req.CSR)
	if err != nil {
		return nil, fmt.Errorf("read the signing request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("check the signing request's signature: %w", err)
	}
	usage, extUsage, err := signer.X509(req.Usages)
	if err != nil {
		return nil, err
	}
	end := now.Add(req.Duration)
	if end.After(s.ca.NotAfter) {
		end = s.ca.NotAfter
	}
	if !end.After(now) {
		return nil, fmt.Errorf("the CA or the wanted duration of %s is over", req.Duration)
	}
	return &x509.Certificate{
		RawSubject:            csr.RawSubject,
		DNSNames:              csr.DNSNames,
		IPAddresses:           csr.IPAddresses,
		URIs:                  csr.URIs,
		PublicKey:             csr.PublicKey,
		NotBefore:             now.Add(-backdate),
		NotAfter:              end,
		KeyUsage:              usage,
		ExtKeyUsage:           extUsage,
		IsCA:                  req.IsCA,
		BasicConstraintsValid: true,
	}, nil
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
