// Package certmanager is a signer that uses cert-manager: it creates a CertificateRequest for each attempt and waits
// for its decision.
package certmanager

import (
	"context"
	"encoding/pem"
	"fmt"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/decision"
)

// A Signer signs through CertificateRequests. It implements [signer.Signer],
// [signer.Forgetter] and [signer.Rememberer].
type Signer struct {
	api       rest.Interface
	anonymous rest.Interface // Without credentials, for requests that bring their own.
	codec     runtime.ParameterCodec
	rights    *decision.Rights
}

// requests is a client for the CertificateRequests of a namespace.
type requests = *gentype.Client[*cmapi.CertificateRequest]

// New makes a signer on the API server of config, without a rate limit: the node plugin limits its requests itself.
func New(config *rest.Config) (*Signer, error) {
	// cert-manager's clientset registers every kind of cert-manager and of the Gateway API, which takes memory.
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(cmapi.SchemeGroupVersion, &cmapi.CertificateRequest{})
	metav1.AddToGroupVersion(scheme, cmapi.SchemeGroupVersion)
	config = rest.CopyConfig(config)
	config.QPS = -1 // k8s.io/client-go rest/config.go: a negative rate is no limit.
	config.APIPath, config.GroupVersion = "/apis", &cmapi.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	api, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for CertificateRequests: %w", err)
	}
	anonymous, err := rest.RESTClientFor(rest.AnonymousClientConfig(config))
	if err != nil {
		return nil, fmt.Errorf("make a client for CertificateRequests: %w", err)
	}
	rights, err := decision.NewRights(config, decision.Right{
		Verb: "create", Group: cmapi.SchemeGroupVersion.Group, Resource: "certificaterequests",
	})
	if err != nil {
		return nil, err
	}
	return &Signer{api: api, anonymous: anonymous, codec: runtime.NewParameterCodec(scheme), rights: rights}, nil
}

// requests makes a client for a namespace.
func (s *Signer) requests(namespace string) requests {
	return gentype.NewClient("certificaterequests", s.api, s.codec, namespace,
		func() *cmapi.CertificateRequest { return &cmapi.CertificateRequest{} })
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
	var client decision.Client[*cmapi.CertificateRequest] = s.requests(wanted.Namespace)
	if req.Token != "" {
		action += fmt.Sprintf(" as service account %s/%s", req.Attempt.Pod.Namespace, req.Attempt.Pod.ServiceAccount)
		client = podClient{s.requests(wanted.Namespace), s.anonymous, req.Token}
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
	err := s.requests(attempt.Pod.Namespace).Delete(ctx, attempt.ObjectName(), metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return decision.Explain(err, "delete CertificateRequest "+attempt.Pod.Namespace+"/"+attempt.ObjectName())
	}
	return nil
}

// Refused implements [signer.Rememberer].
func (s *Signer) Refused(ctx context.Context, attempt signer.Attempt) error {
	namespace := attempt.Pod.Namespace
	return kind().Refused(ctx, s.requests(namespace), namespace, attempt.ObjectName())
}

// Object returns the CertificateRequest of an attempt. The pod owns it, so that it is deleted with the pod.
func Object(req signer.Request) *cmapi.CertificateRequest {
	pod := req.Attempt.Pod
	usages := make([]cmapi.KeyUsage, len(req.Usages))
	for i, u := range req.Usages {
		usages[i] = cmapi.KeyUsage(u)
	}
	return &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Name:        req.Attempt.ObjectName(),
			Namespace:   pod.Namespace,
			Annotations: req.Annotations,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: types.UID(pod.UID),
			}},
		},
		Spec: cmapi.CertificateRequestSpec{
			Request:   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: req.CSR}),
			IssuerRef: cmmeta.IssuerReference{Name: req.Issuer.Name, Kind: req.Issuer.Kind, Group: req.Issuer.Group},
			Duration:  &metav1.Duration{Duration: req.Duration},
			Usages:    usages,
			IsCA:      req.IsCA,
		},
	}
}

// A podClient creates requests as the pod, with a token of its service account, and reads them as the node plugin.
type podClient struct {
	requests
	anonymous rest.Interface
	token     signer.Token
}

// Create implements [decision.Client].
func (a podClient) Create(
	ctx context.Context, wanted *cmapi.CertificateRequest, _ metav1.CreateOptions,
) (*cmapi.CertificateRequest, error) {
	created := &cmapi.CertificateRequest{}
	err := a.anonymous.Post().Namespace(wanted.Namespace).Resource("certificaterequests").
		SetHeader("Authorization", "Bearer "+string(a.token)).Body(wanted).Do(ctx).Into(created)
	return created, err
}
