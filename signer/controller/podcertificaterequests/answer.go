package podcertificaterequests

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/chain"
	"github.com/mayfly-csi/mayfly/signer/controller/audit"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/message"
)

// answerIssued gives the certificate to the one who asked. One that is of no use to them is an error of a signer.
func (s *Signer) answerIssued(
	ctx context.Context, pcr *certificatesv1.PodCertificateRequest, d decide.Decision, issued signer.Issued,
) error {
	v := d.Certificate
	status, leaf, err := s.status(pcr, issued)
	if err != nil {
		return signer.Errorf(signer.Failed, "unusable certificate from %s %s: %w", v.Issuer.Kind, v.Issuer.Name, err)
	}
	signed := fmt.Sprintf("signed by %s %s for volume of pod %s", v.Issuer.Kind, v.Issuer.Name, pcr.Spec.PodName)
	first, err := s.answer(ctx, pcr, status,
		condition(certificatesv1.PodCertificateRequestConditionTypeIssued, decide.Verified, signed))
	if apierrors.IsInvalid(err) { // The error says what the API server has against it, such as its lifetime.
		const format = "Kubernetes does not take the certificate of %s %s: %w"
		return signer.Errorf(signer.Failed, format, v.Issuer.Kind, v.Issuer.Name, err)
	}
	if first {
		if own(d) { // Else the approval was the decision.
			s.Audit.Write(decisionOf(pcr, d))
		}
		s.Audit.Write(certificateOf(pcr, d, leaf))
	}
	return err
}

// status makes a request's status of an issued certificate. Mayfly's node plugin gets the CA certificates, too,
// behind the others: the status has no place of their own. The kubelet would show them in TLS handshakes.
func (s *Signer) status(
	pcr *certificatesv1.PodCertificateRequest, issued signer.Issued,
) (status certificatesv1.PodCertificateRequestStatus, leaf *x509.Certificate, err error) {
	c, ca, err := s.chain(pcr, issued)
	if err != nil {
		return status, nil, err
	}
	sent := c.Certificates()
	if !native(pcr) {
		sent = chain.Unite(sent, ca)
	}
	leaf = c.Leaf()
	return certificatesv1.PodCertificateRequestStatus{
		CertificateChain: string(sent.Parsed().Encode()), // The API server takes no other.
		NotBefore:        &metav1.Time{Time: leaf.NotBefore},
		NotAfter:         &metav1.Time{Time: leaf.NotAfter},
		BeginRefreshAt:   &metav1.Time{Time: refreshAt(leaf.NotBefore, leaf.NotAfter, c.End())},
	}, leaf, nil
}

// chain reads what was issued for a request. What peers would refuse is an error; CA certificates that can't be read
// are left out.
func (s *Signer) chain(
	pcr *certificatesv1.PodCertificateRequest, issued signer.Issued,
) (c chain.Chain, ca chain.Bundle, err error) {
	log := s.Log.With("request", pcr.Namespace+"/"+pcr.Name)
	certificates, err := chain.Parse(issued.Chain)
	if err != nil {
		return c, nil, fmt.Errorf("read the certificate chain: %w", err)
	}
	asked, err := x509.ParseCertificateRequest(pcr.Spec.StubPKCS10Request)
	if err != nil {
		return c, nil, fmt.Errorf("read the signing request: %w", err)
	}
	if len(issued.CA) > 0 {
		if ca, err = chain.Parse(issued.CA); err != nil {
			log.Warn("CA certificates of an issuer are left out", "error", err)
		}
	}
	now := time.Now()
	if c, err = chain.New(certificates, ca, asked.PublicKey, now); err != nil {
		return c, nil, err
	}
	for _, problem := range c.Problems() {
		log.Warn("an issuer's certificate chain is unusual", "problem", problem)
	}
	if err := c.Verified(); err != nil {
		return c, nil, err
	}
	if !c.End().After(now) {
		return c, nil, fmt.Errorf("%s expired at %s", c.EndsWith(), chain.Stamp(c.End()))
	}
	return c, ca, nil
}

// refreshAt returns when to renew: after two thirds of the time until the first certificate of the path ends, and as
// far from the certificate's own begin and end as the API server demands (kubernetes
// pkg/apis/certificates/validation).
func refreshAt(begin, end, chainEnds time.Time) time.Time {
	const margin = 10 * time.Minute
	at := begin.Add(chainEnds.Sub(begin) * 2 / 3).Truncate(time.Second)
	if latest := end.Add(-margin); at.After(latest) {
		at = latest
	}
	if earliest := begin.Add(margin); at.Before(earliest) {
		at = earliest
	}
	return at
}

// deny answers a request that can't be.
func (s *Signer) deny(ctx context.Context, pcr *certificatesv1.PodCertificateRequest, d decide.Decision) error {
	denial := condition(certificatesv1.PodCertificateRequestConditionTypeDenied, d.Reason, d.Message)
	first, err := s.answer(ctx, pcr, certificatesv1.PodCertificateRequestStatus{}, denial)
	if err != nil || !first {
		return err
	}
	s.Audit.Write(decisionOf(pcr, d))
	s.recordUnused(ctx, pcr)
	s.sendEvent(pcr, pod(pcr), d.Reason, "DenyPodCertificate", d.Message)
	return nil
}

// fail answers a request that its signer can't honour.
func (s *Signer) fail(
	ctx context.Context, pcr *certificatesv1.PodCertificateRequest, d decide.Decision, cause error,
) error {
	const reason = "SigningFailed"
	failed := condition(certificatesv1.PodCertificateRequestConditionTypeFailed, reason, cause.Error())
	first, err := s.answer(ctx, pcr, certificatesv1.PodCertificateRequestStatus{}, failed)
	if err != nil || !first {
		return err
	}
	record := decisionOf(pcr, d)
	record.Decision, record.Reason, record.Message = audit.Failed, reason, failed.Message
	s.Audit.Write(record)
	s.recordUnused(ctx, pcr)
	s.sendEvent(pcr, pod(pcr), reason, "SignPodCertificate", cause.Error())
	return nil
}

func condition(kind, reason, text string) metav1.Condition {
	return metav1.Condition{
		Type: kind, Status: metav1.ConditionTrue, Reason: reason,
		Message: message.Cut(text, message.Longest), LastTransitionTime: metav1.Now(),
	}
}

// answer writes the answer down and counts it, and says whether it did: who comes second finds the request answered.
func (s *Signer) answer(
	ctx context.Context, pcr *certificatesv1.PodCertificateRequest,
	status certificatesv1.PodCertificateRequestStatus, c metav1.Condition,
) (first bool, err error) {
	answered := pcr.DeepCopy()
	answered.Status = status
	answered.Status.Conditions = []metav1.Condition{c}
	unchanged := client.MergeFromWithOptions(pcr, client.MergeFromWithOptimisticLock{})
	err = s.Requests.Status().Patch(ctx, answered, unchanged)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("answer PodCertificateRequest %s/%s: %w", pcr.Namespace, pcr.Name, err)
	}
	s.answers.WithLabelValues(strings.ToLower(c.Type), c.Reason).Inc()
	return true, nil
}

// review deletes a denied request if another one like it would be signed now: its node plugin waits for that. An answer
// can't be changed (kubernetes pkg/apis/certificates/validation, ValidatePodCertificateRequestStatusUpdate), and
// Kubernetes deletes the request a quarter of an hour after it was made.
func (s *Signer) review(ctx context.Context, pcr *certificatesv1.PodCertificateRequest) error {
	if !denied(pcr) {
		return nil
	}
	d, err := s.Decider.Decide(ctx, request(pcr))
	if err != nil || d.Verdict != decide.Approve {
		return err
	}
	if err := s.Requests.Delete(ctx, pcr, client.Preconditions{UID: &pcr.UID}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete PodCertificateRequest %s/%s: %w", pcr.Namespace, pcr.Name, err)
	}
	s.Log.Info("denied request would be signed now: it is deleted",
		"request", pcr.Namespace+"/"+pcr.Name, "pod", pcr.Spec.PodName)
	return nil
}

// deletePassed deletes the CertificateRequest of an answered request, if there is one.
func (s *Signer) deletePassed(ctx context.Context, pcr *certificatesv1.PodCertificateRequest) error {
	cr, err := s.passedOn(ctx, pcr)
	if err != nil || cr == nil {
		return err
	}
	if err := s.Requests.Delete(ctx, cr); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete CertificateRequest %s/%s: %w", cr.Namespace, cr.Name, err)
	}
	return nil
}
