// Package approver decides on the CertificateRequests of Mayfly's node plugins, and on no others: a request is approved only if the node that asks runs the pod,
// and the pod has a volume that asks for just this.
//
// Who made a request is as the API server told cert-manager's webhook.
package approver

import (
	"slices"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/proof"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// Callers are those whose requests are decided on.
type Callers struct {
	NodePlugin string // The user that the node plugins are for the API server.
}

// nodeName is the key of a caller's node (k8s.io/apiserver pkg/authentication/serviceaccount, NodeNameKey).
const nodeName = "authentication.kubernetes.io/node-name"

// Concern reports whether the request is one to decide on.
func (c Callers) Concern(cr *cmapi.CertificateRequest) bool {
	return cr.DeletionTimestamp == nil && !decided(cr) && cr.Spec.Username == c.NodePlugin
}

// denied reports whether the request was denied for what may end, and does not say yet that it has ended.
func (c Callers) denied(cr *cmapi.CertificateRequest) bool {
	is := func(kind cmapi.CertificateRequestConditionType, of func(reason string) bool) bool {
		return slices.ContainsFunc(cr.Status.Conditions, func(c cmapi.CertificateRequestCondition) bool {
			return c.Type == kind && c.Status == cmmeta.ConditionTrue && of(c.Reason)
		})
	}
	whatever := func(string) bool { return true }
	return cr.DeletionTimestamp == nil && is(cmapi.CertificateRequestConditionDenied, proof.MayEnd) && !is(signer.Approvable, whatever) && cr.Spec.Username == c.NodePlugin
}

func decided(cr *cmapi.CertificateRequest) bool {
	return slices.ContainsFunc(cr.Status.Conditions, func(c cmapi.CertificateRequestCondition) bool {
		return (c.Type == cmapi.CertificateRequestConditionApproved || c.Type == cmapi.CertificateRequestConditionDenied) && c.Status == cmmeta.ConditionTrue
	})
}

// claim returns what the request says of a pod.
func (c Callers) claim(cr *cmapi.CertificateRequest) (proof.Claim, error) {
	node := cr.Spec.Extra[nodeName]
	if len(node) != 1 || node[0] == "" {
		return proof.Claim{}, proof.Refuse(proof.CallerUnknown, "the request does not say on which node %s runs: its token must be bound to its pod (%s)", c.NodePlugin, nodeName)
	}
	pod, err := owner(cr)
	return proof.Claim{
		Namespace: cr.Namespace, Pod: pod.Name, UID: pod.UID, Node: node[0], MadeAt: cr.CreationTimestamp.Time,
		Against: func(v spec.Spec) problem.List { return against(cr, v) },
	}, err
}

// owner returns the reference to the pod that the request is for.
func owner(cr *cmapi.CertificateRequest) (metav1.OwnerReference, error) {
	owners := cr.OwnerReferences
	if len(owners) != 1 || owners[0].APIVersion != "v1" || owners[0].Kind != "Pod" || owners[0].Name == "" || owners[0].UID == "" {
		return metav1.OwnerReference{}, proof.Refuse(proof.NotOfAPod, "the request must be owned by one pod and nothing else")
	}
	return owners[0], nil
}
