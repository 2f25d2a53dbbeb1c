package podcertificaterequests

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/ca"
	"github.com/mayfly-csi/mayfly/signer/certmanager"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/object"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// issue gets the certificate signed, and answers once that is decided.
func (s *Signer) issue(
	ctx context.Context, pcr *certificatesv1.PodCertificateRequest, d decide.Decision,
) (reconcile.Result, error) {
	sign := s.pass
	if own(d) {
		sign = s.sign
	}
	issued, err := sign(ctx, pcr, d)
	if err == nil {
		err = s.answerIssued(ctx, pcr, d, issued)
	}
	switch kind := signer.KindOf(err); {
	case err == nil || !errors.As(err, new(*signer.Error)):
		return reconcile.Result{}, err
	case kind.Ends() && (kind != signer.Failed || !native(pcr)): // A CA may be mended, and so may a clock.
		return reconcile.Result{}, s.fail(ctx, pcr, d, err)
	case kind == signer.NotYet:
		return reconcile.Result{}, nil // The change that it waits for brings it back.
	}
	s.reportWaiting(pcr, "NotSignedYet", err.Error())
	return reconcile.Result{RequeueAfter: later(pcr)}, nil
}

// own reports whether a CA of the controller signs.
func own(d decide.Decision) bool { return d.Certificate.Issuer.Group == signer.CAGroup }

// sign signs with a CA of the controller.
func (s *Signer) sign(
	ctx context.Context, pcr *certificatesv1.PodCertificateRequest, d decide.Decision,
) (signer.Issued, error) {
	v := d.Certificate
	name := v.Issuer.Name
	if v.Issuer.Kind != signer.CAKind {
		const format = "issuer %s %s of %s: issuers of that group have the kind %s"
		err := signer.Errorf(signer.Invalid, format, v.Issuer.Kind, name, signer.CAGroup, signer.CAKind)
		return signer.Issued{}, err
	}
	if name != s.OwnCA && !decide.Serves(name, v.Pod.Namespace) {
		const format = "CA %s is not for this pod: there are %s, issuer.%s.<name>, of the pod's own namespace, and " +
			"clusterissuer.<name>"
		return signer.Issued{}, signer.Errorf(signer.Denied, format, name, s.OwnCA, v.Pod.Namespace)
	}
	authority, err := s.CAs.Get(ctx, s.signerOf(name))
	if err != nil {
		return signer.Issued{}, signer.Errorf(signer.Unavailable, "sign with CA %s: %w", name, err)
	}
	template, err := template(pcr, v)
	if err != nil {
		return signer.Issued{}, signer.Errorf(signer.Invalid, "sign with CA %s: %w", name, err)
	}
	lifetime := decide.Lifetime(pcr.Spec.MaxExpirationSeconds)
	if template.NotBefore, template.NotAfter, err = authority.Validity(time.Now(), lifetime); err != nil {
		return signer.Issued{}, signer.Errorf(signer.Unavailable, "sign with CA %s: %w", name, err)
	}
	issued, err := authority.Sign(template)
	if err != nil {
		return signer.Issued{}, signer.Errorf(signer.Failed, "sign with CA %s: %w", name, err)
	}
	return issued, nil
}

// signerOf returns the signer that a CA is for.
func (s *Signer) signerOf(name string) string {
	if name == s.OwnCA {
		return signer.PodCertificateSigner
	}
	return decide.Domain + name
}

// template makes a certificate with what the volume asks for, and the request's key.
func template(pcr *certificatesv1.PodCertificateRequest, v spec.Spec) (*x509.Certificate, error) {
	asked, err := x509.ParseCertificateRequest(pcr.Spec.StubPKCS10Request)
	if err != nil {
		return nil, err
	}
	derived, err := decide.Derive(v)
	if err != nil {
		return nil, err
	}
	template, err := ca.Template(derived, v.Usages, v.IsCA)
	if err != nil {
		return nil, err
	}
	template.PublicKey = asked.PublicKey
	return template, nil
}

// Keep reports whether a CertificateRequest is one that the controller, which is self for the API server, passes on.
// cert-manager's webhook says who made it.
func Keep(cr *cmapi.CertificateRequest, self string) bool {
	owners := cr.OwnerReferences
	return len(owners) == 1 && owners[0].Kind == "PodCertificateRequest" &&
		owners[0].APIVersion == certificatesv1.SchemeGroupVersion.String() &&
		(cr.Spec.Username == self || cr.Spec.Username == "")
}

// pass asks the cert-manager issuer that the volume names: the signing request goes on as it is, in a
// CertificateRequest that is deleted with the PodCertificateRequest.
func (s *Signer) pass(
	ctx context.Context, pcr *certificatesv1.PodCertificateRequest, d decide.Decision,
) (signer.Issued, error) {
	wanted := passed(pcr, d.Certificate)
	cr, err := s.submit(ctx, wanted)
	if err != nil || cr == nil {
		return signer.Issued{}, err
	}
	if !s.same(cr, wanted) || cr.Spec.Username != "" && cr.Spec.Username != s.Self {
		const format = "CertificateRequest %s/%s is not as mayfly-controller makes it: " +
			"somebody else made or changed it (%s)"
		return signer.Issued{}, signer.Errorf(signer.Failed, format, cr.Namespace, cr.Name, decide.ByWebhook)
	}
	approved, err := s.approve(ctx, cr)
	if err != nil {
		return signer.Issued{}, err
	}
	if approved {
		s.Audit.Write(decisionOf(pcr, d))
	}
	issued, err, decided := decision(cr)
	if !decided {
		err = errNotYet
	}
	return issued, err
}

// errNotYet is that a CertificateRequest waits for its issuer.
var errNotYet = signer.Errorf(signer.NotYet, "the issuer has not signed yet")

// atIssuer reports whether the request was passed on and approved, and its issuer has yet to decide: there is nothing
// to decide here until then, and then all is decided anew. A CertificateRequest that no controller made is not waited
// for.
func (s *Signer) atIssuer(ctx context.Context, pcr *certificatesv1.PodCertificateRequest) (bool, error) {
	cr, err := s.passedOn(ctx, pcr)
	if err != nil || cr == nil {
		return false, err
	}
	_, _, over := decision(cr)
	return cr.Spec.Username == s.Self && decided(cr) && !over, nil
}

// passedOn returns the CertificateRequest by which a request was passed on, as the cache has it; nil: there is none.
func (s *Signer) passedOn(
	ctx context.Context, pcr *certificatesv1.PodCertificateRequest,
) (*cmapi.CertificateRequest, error) {
	cr := &cmapi.CertificateRequest{}
	if err := s.Requests.Get(ctx, client.ObjectKeyFromObject(pcr), cr); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if !Keep(cr, s.Self) || cr.OwnerReferences[0].UID != pcr.UID {
		return nil, nil
	}
	return cr, nil
}

// passed makes the CertificateRequest for a volume.
func passed(pcr *certificatesv1.PodCertificateRequest, v spec.Spec) *cmapi.CertificateRequest {
	made := certmanager.Object(v.Request("", pcr.Spec.StubPKCS10Request))
	cr := &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Name: pcr.Name, Namespace: made.Namespace, Annotations: made.Annotations,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: certificatesv1.SchemeGroupVersion.String(), Kind: "PodCertificateRequest",
				Name: pcr.Name, UID: pcr.UID,
			}},
		},
		Spec: cmapi.CertificateRequestSpec{
			Request: made.Spec.Request, IssuerRef: cmmeta.IssuerReference(made.Spec.IssuerRef),
			Duration: &made.Spec.Duration, IsCA: made.Spec.IsCA,
		},
	}
	for _, u := range made.Spec.Usages {
		cr.Spec.Usages = append(cr.Spec.Usages, cmapi.KeyUsage(u))
	}
	return cr
}

// decision reads what became of a CertificateRequest, as node plugins do.
func decision(cr *cmapi.CertificateRequest) (issued signer.Issued, err error, decided bool) {
	seen := &certmanager.CertificateRequest{
		Meta:   object.Meta{Name: cr.Name, Namespace: cr.Namespace},
		Status: certmanager.Status{Certificate: cr.Status.Certificate, CA: cr.Status.CA},
	}
	for _, c := range cr.Status.Conditions {
		seen.Status.Conditions = append(seen.Status.Conditions, object.Condition{
			Type: string(c.Type), Status: metav1.ConditionStatus(c.Status), Reason: c.Reason, Message: c.Message,
		})
	}
	return certmanager.Decide(seen)
}

// submit returns the CertificateRequest as it is, making it if there is none. One that the cache does not know yet
// comes later.
func (s *Signer) submit(ctx context.Context, wanted *cmapi.CertificateRequest) (*cmapi.CertificateRequest, error) {
	found := &cmapi.CertificateRequest{}
	err := s.Requests.Get(ctx, client.ObjectKeyFromObject(wanted), found)
	if err == nil {
		return found, nil
	}
	made := wanted.DeepCopy()
	if apierrors.IsNotFound(err) {
		err = s.Requests.Create(ctx, made)
	}
	switch {
	case apierrors.IsAlreadyExists(err):
		return nil, errNotYet
	case err != nil:
		const format = "make CertificateRequest %s/%s: %w"
		return nil, signer.Errorf(signer.Unavailable, format, wanted.Namespace, wanted.Name, err)
	}
	return made, nil
}

// same reports whether a CertificateRequest asks for just what the wanted one does, for the same PodCertificateRequest.
// Of one that was approved the annotations are its issuer's, too, who may keep notes there (cert-manager
// pkg/controller/certificaterequests/venafi).
func (s *Signer) same(found, wanted *cmapi.CertificateRequest) bool {
	annotations := s.Decider.Rules.Counted(found.Annotations, wanted.Annotations)
	f, w := found.Spec, wanted.Spec
	return bytes.Equal(f.Request, w.Request) && f.IssuerRef == w.IssuerRef && f.IsCA == w.IsCA &&
		reflect.DeepEqual(f.Usages, w.Usages) && f.Duration != nil && f.Duration.Duration == w.Duration.Duration &&
		(decided(found) || maps.Equal(annotations, wanted.Annotations)) &&
		reflect.DeepEqual(found.OwnerReferences, wanted.OwnerReferences)
}

// decided reports whether a CertificateRequest is approved or denied.
func decided(cr *cmapi.CertificateRequest) bool {
	return slices.ContainsFunc(cr.Status.Conditions, func(c cmapi.CertificateRequestCondition) bool {
		return c.Type == cmapi.CertificateRequestConditionApproved || c.Type == cmapi.CertificateRequestConditionDenied
	})
}

// approve approves the request, unless that is decided, and says whether it did.
func (s *Signer) approve(ctx context.Context, cr *cmapi.CertificateRequest) (bool, error) {
	if decided(cr) {
		return false, nil
	}
	before, now := cr.DeepCopy(), metav1.Now()
	cr.Status.Conditions = append(cr.Status.Conditions, cmapi.CertificateRequestCondition{
		Type: cmapi.CertificateRequestConditionApproved, Status: cmmeta.ConditionTrue, Reason: decide.Verified,
		Message:            fmt.Sprintf("PodCertificateRequest %s is what a volume of its pod asks for", cr.Name),
		LastTransitionTime: &now,
	})
	err := s.Requests.Status().Patch(ctx, cr, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	switch {
	case apierrors.IsConflict(err) || apierrors.IsNotFound(err):
		return false, errNotYet
	case err != nil:
		const format = "approve CertificateRequest %s/%s: %w"
		return false, signer.Errorf(signer.Unavailable, format, cr.Namespace, cr.Name, err)
	}
	return true, nil
}
