// Package certmanager is a signer that uses cert-manager: it creates a CertificateRequest for each attempt and waits
// for its decision.
package certmanager

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/decision"
	"github.com/mayfly-csi/mayfly/signer/object"
)

// A Signer signs through CertificateRequests. It implements [signer.Signer],
// [signer.Forgetter] and [signer.Rememberer].
type Signer struct {
	requests  object.Client[CertificateRequest]
	anonymous object.Client[CertificateRequest] // Without credentials, for requests that bring their own.
	rights    *decision.Rights
}

// New makes a signer on the API server of config.
func New(config *rest.Config) (*Signer, error) {
	api, err := object.Connect(config, version(), nil)
	anonymous, anonymousErr := object.Connect(object.Anonymous(config), version(), nil)
	rights, rightsErr := decision.NewRights(config, decision.Right{
		Verb: "create", Group: version().Group, Resource: resource,
	})
	if err := errors.Join(err, anonymousErr, rightsErr); err != nil {
		return nil, err
	}
	return &Signer{
		requests:  object.New[CertificateRequest](api, resource),
		anonymous: object.New[CertificateRequest](anonymous, resource),
		rights:    rights,
	}, nil
}

// Sign implements [signer.Signer].
func (s *Signer) Sign(ctx context.Context, req signer.Request) (signer.Issued, error) {
	if req.Issuer.Group == signer.CAGroup {
		const format = "%s %s is a CA of mayfly-controller, which cert-manager does not know: " +
			"it signs for node plugins with --signer=pod-certificate"
		return signer.Issued{}, signer.Errorf(signer.Invalid, format, req.Issuer.Kind, req.Issuer.Name)
	}
	wanted := Object(req)
	action := "create " + kind().Title(wanted)
	var client decision.Client[*CertificateRequest] = s.requests.In(wanted.Namespace)
	if req.Token != "" {
		action += fmt.Sprintf(" as service account %s/%s", req.Attempt.Pod.Namespace, req.Attempt.Pod.ServiceAccount)
		client = podClient{s.requests.In(wanted.Namespace), s.anonymous.In(wanted.Namespace).As(string(req.Token))}
	}
	found, err := kind().Submit(ctx, client, wanted, action)
	if err != nil {
		return signer.Issued{}, s.whenGranted(err, req)
	}
	return kind().Await(ctx, client, found)
}

// whenGranted lets an error of a call that was forbidden wait for the right of the node plugin, or of the pod's service
// account if that made the call: only its token can tell what it may do.
func (s *Signer) whenGranted(err error, req signer.Request) error {
	of := decision.Account{Namespace: req.Attempt.Pod.Namespace}
	if req.Token != "" {
		of.Name = req.Attempt.Pod.ServiceAccount
	}
	return s.rights.WhenGranted(err, of)
}

// Forget implements [signer.Forgetter].
func (s *Signer) Forget(ctx context.Context, attempt signer.Attempt) error {
	err := s.requests.In(attempt.Pod.Namespace).Delete(ctx, attempt.ObjectName())
	if err != nil && !apierrors.IsNotFound(err) {
		return decision.Explain(err, "delete CertificateRequest "+attempt.Pod.Namespace+"/"+attempt.ObjectName())
	}
	return nil
}

// Refused implements [signer.Rememberer].
func (s *Signer) Refused(ctx context.Context, attempt signer.Attempt) error {
	namespace := attempt.Pod.Namespace
	return kind().Refused(ctx, s.requests.In(namespace), namespace, attempt.ObjectName())
}

// A podClient creates requests as the pod, with a token of its service account, and reads them as the node plugin.
type podClient struct {
	object.Client[CertificateRequest]
	pod object.Client[CertificateRequest]
}

// Create implements [decision.Client].
func (c podClient) Create(ctx context.Context, wanted *CertificateRequest) (*CertificateRequest, error) {
	return c.pod.Create(ctx, wanted)
}
