package podcertificaterequests

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"strings"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
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
	cr, d := s.passedOn(ctx, pcr)
	if cr == nil || s.unused(pcr, cr, d) {
		return
	}
	r := recordOf(pcr, d)
	r.Audit, r.Decision, r.Certificate = audit.Certificate, audit.Approved, audit.Unknown
	r.Message = "the request was deleted before its certificate was seen"
	s.Audit.Write(r)
}

// refused records the certificate of an issuer that is not the answer, if there is one: what it was signed for has
// changed meanwhile, or Kubernetes does not take it.
func (s *Signer) refused(ctx context.Context, pcr *certificatesv1.PodCertificateRequest) {
	if cr, d := s.passedOn(ctx, pcr); cr != nil {
		s.unused(pcr, cr, d)
	}
}

// passedOn returns the approved CertificateRequest by which a request was passed on, as the cache has it (Kubernetes
// deletes it after its owner), and the decision on it; nil: there is none.
func (s *Signer) passedOn(
	ctx context.Context, pcr *certificatesv1.PodCertificateRequest,
) (*cmapi.CertificateRequest, decide.Decision) {
	cr, d := &cmapi.CertificateRequest{}, decide.Decision{Reason: decide.Verified}
	if s.Requests.Get(ctx, client.ObjectKeyFromObject(pcr), cr) != nil || !Keep(cr, s.Self) ||
		cr.OwnerReferences[0].UID != pcr.UID || !decided(cr) {
		return nil, d
	}
	d.Certificate.Issuer = signer.Issuer(cr.Spec.IssuerRef)
	return cr, d
}

// unused records the certificate of a CertificateRequest, and reports whether it has one.
func (s *Signer) unused(
	pcr *certificatesv1.PodCertificateRequest, cr *cmapi.CertificateRequest, d decide.Decision,
) bool {
	block, _ := pem.Decode(cr.Status.Certificate)
	if block == nil {
		return false
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return false
	}
	s.Audit.Write(certificateOf(pcr, d, leaf))
	return true
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
