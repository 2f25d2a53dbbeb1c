// Package certificaterequests decides on the CertificateRequests of Mayfly's node plugins, and on no others.
//
// Who made a request is as the API server told cert-manager's webhook.
package certificaterequests

import (
	"maps"
	"slices"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/decide"
)

// Callers are those whose requests are decided on.
type Callers struct {
	NodePlugin string // The user that the node plugins are for the API server.
}

// nodeName is the key of a caller's node (k8s.io/apiserver pkg/authentication/serviceaccount, NodeNameKey).
const nodeName = "authentication.kubernetes.io/node-name"

// Concern reports whether the request is one to decide on.
func (c Callers) Concern(cr *cmapi.CertificateRequest) bool {
	decided := is(cr, cmapi.CertificateRequestConditionApproved) || is(cr, cmapi.CertificateRequestConditionDenied)
	return cr.DeletionTimestamp == nil && !decided && cr.Spec.Username == c.NodePlugin
}

// denied reports whether the request was denied for what may end, and does not say yet that it has ended.
func (c Callers) denied(cr *cmapi.CertificateRequest) bool {
	mayEnd := slices.ContainsFunc(cr.Status.Conditions, func(c cmapi.CertificateRequestCondition) bool {
		return c.Type == cmapi.CertificateRequestConditionDenied && decide.MayEnd(c.Reason)
	})
	return cr.DeletionTimestamp == nil && mayEnd && is(cr, cmapi.CertificateRequestConditionDenied) &&
		!is(cr, signer.Approvable) && cr.Spec.Username == c.NodePlugin
}

// is reports whether the request has a condition.
func is(cr *cmapi.CertificateRequest, kind cmapi.CertificateRequestConditionType) bool {
	return slices.ContainsFunc(cr.Status.Conditions, func(c cmapi.CertificateRequestCondition) bool {
		return c.Type == kind && c.Status == cmmeta.ConditionTrue
	})
}

// request returns what a CertificateRequest says.
func request(cr *cmapi.CertificateRequest) decide.Request {
	r := decide.Request{
		Caller: cr.Spec.Username, Namespace: cr.Namespace, Made: cr.CreationTimestamp.Time,
		Volume: cr.Annotations[signer.VolumeAnnotation], Annotations: maps.Clone(cr.Annotations),
		CSR: cr.Spec.Request,
		Object: &decide.Object{
			Issuer: signer.Issuer(cr.Spec.IssuerRef), IsCA: cr.Spec.IsCA, Labels: cr.Labels, Finalizers: cr.Finalizers,
		},
	}
	delete(r.Annotations, signer.VolumeAnnotation)
	if cr.Spec.Duration != nil {
		r.Duration = cr.Spec.Duration.Duration
	}
	for _, u := range cr.Spec.Usages {
		r.Object.Usages = append(r.Object.Usages, signer.Usage(u))
	}
	if nodes := cr.Spec.Extra[nodeName]; len(nodes) == 1 {
		r.Node = nodes[0]
	}
	if owners := cr.OwnerReferences; len(owners) == 1 && owners[0].APIVersion == "v1" && owners[0].Kind == "Pod" &&
		owners[0].Controller == nil && owners[0].BlockOwnerDeletion == nil {
		r.Pod, r.UID = owners[0].Name, owners[0].UID
	}
	return r
}
