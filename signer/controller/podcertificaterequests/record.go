package podcertificaterequests

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"strings"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/audit"
	"github.com/mayfly-csi/mayfly/signer/decide"
)

// decisionOf returns the record of a decision. What was approved is what the pod's volume asks for, with the request's
// key.
func decisionOf(pcr *certificatesv1.PodCertificateRequest, d decide.Decision) audit.Record {
	r := recordOf(pcr, d)
	r.Audit, r.Decision, r.Message = audit.Decision, audit.Denied, d.Message
	r.Content = audit.OfDenied(pcr.Spec.StubPKCS10Request, nil, false)
	if d.Verdict != decide.Approve {
		return r
	}
	r.Decision = audit.Approved
	if derived, err := decide.Derive(d.Certificate); err == nil {
		key := r.KeySHA256
		r.Content = audit.OfRequest(derived.Raw, d.Certificate.Usages, d.Certificate.IsCA)
		r.KeySHA256 = key
	}
	return r
}

// certificateOf returns the record of a certificate that was answered.
func certificateOf(
	pcr *certificatesv1.PodCertificateRequest, d decide.Decision, leaf *x509.Certificate,
) audit.Record {
	r := recordOf(pcr, d)
	r.Audit, r.Decision, r.Certificate = audit.Certificate, audit.Approved, audit.Issued
	r.Content, r.Validity = audit.OfCertificate(leaf)
	return r
}

// deletions returns what hears that requests are deleted. It makes no requests for the controller.
func (s *Signer) deletions() handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	return handler.Funcs{DeleteFunc: func(ctx context.Context, e event.DeleteEvent, _ queue) {
		if pcr, ok := e.Object.(*certificatesv1.PodCertificateRequest); ok && s.Audit != nil && s.Holder.Holds() {
			s.deleted(ctx, pcr)
		}
	}}
}

// deleted records a request that was approved, and ends without an answer: its issuer may have signed.
func (s *Signer) deleted(ctx context.Context, pcr *certificatesv1.PodCertificateRequest) {
	if !ours(pcr) || answered(pcr) {
		return
	}
	cr, err := s.passedOn(ctx, pcr) // Kubernetes deletes it after its owner.
	if err != nil || cr == nil || !decided(cr) || s.recordCertificate(pcr, cr) {
		return
	}
	r := recordOf(pcr, approvalOf(cr))
	r.Audit, r.Decision, r.Certificate = audit.Certificate, audit.Approved, audit.Unknown
	r.Message = "the request was deleted before its certificate was seen"
	s.Audit.Write(r)
}

// recordUnused records a certificate that an issuer has signed and that is not the answer, if there is one: what it was
// signed for has changed meanwhile, or Kubernetes does not take it.
func (s *Signer) recordUnused(ctx context.Context, pcr *certificatesv1.PodCertificateRequest) {
	if cr, err := s.passedOn(ctx, pcr); err == nil && cr != nil {
		s.recordCertificate(pcr, cr)
	}
}

// recordCertificate records the certificate of a CertificateRequest, and reports whether it has one.
func (s *Signer) recordCertificate(pcr *certificatesv1.PodCertificateRequest, cr *cmapi.CertificateRequest) bool {
	block, _ := pem.Decode(cr.Status.Certificate)
	if block == nil {
		return false
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return false
	}
	s.Audit.Write(certificateOf(pcr, approvalOf(cr), leaf))
	return true
}

// approvalOf returns what a CertificateRequest still says of the decision by which it was approved.
func approvalOf(cr *cmapi.CertificateRequest) decide.Decision {
	d := decide.Decision{Reason: decide.Verified}
	d.Certificate.Issuer = signer.Issuer(cr.Spec.IssuerRef)
	return d
}

// recordOf returns what all records of a request say.
func recordOf(pcr *certificatesv1.PodCertificateRequest, d decide.Decision) audit.Record {
	r := audit.Record{
		Mode: audit.PodCertificate, Reason: d.Reason, Policy: d.Policies,
		Request: &audit.Request{Kind: "PodCertificateRequest", Name: pcr.Name, UID: pcr.UID},
		Issuer:  audit.IssuerOf(d.Certificate.Issuer),
		Pod: audit.Pod{
			Namespace: pcr.Namespace, Name: pcr.Spec.PodName, UID: pcr.Spec.PodUID, Node: string(pcr.Spec.NodeName),
			ServiceAccount: pcr.Spec.ServiceAccountName,
		},
	}
	if native(pcr) {
		name := strings.TrimPrefix(pcr.Spec.SignerName, decide.Domain)
		r.Mode = audit.Native
		r.Issuer = &audit.Issuer{Group: signer.CAGroup, Kind: signer.CAKind, Name: name}
	}
	return r
}
