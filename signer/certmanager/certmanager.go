// Package certmanager is a signer that asks cert-manager: it creates a CertificateRequest for each attempt and waits for its decision.
//
// The API server pays for one object and one watch that it dispatches nothing but that object's events to
// (k8s.io/apiserver pkg/storage/cacher/cacher.go, watches by namespace and name), whatever the size of the cluster.
package certmanager

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

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
)

// A Signer signs through CertificateRequests. It implements [signer.Signer] and [signer.Forgetter].
type Signer struct {
	api   rest.Interface
	bare  rest.Interface // Without credentials, for requests that bring their own.
	codec runtime.ParameterCodec
}

// requests are the CertificateRequests of a namespace.
type requests = *gentype.Client[*cmapi.CertificateRequest]

// New is a signer on the API server of config. It sets no limit of its own to the requests: the node plugin bounds them.
func New(config *rest.Config) (*Signer, error) {
	// cert-manager's clientset knows every kind of cert-manager and of the Gateway API, which this process would hold in memory.
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
	bare, err := rest.RESTClientFor(rest.AnonymousClientConfig(config))
	if err != nil {
		return nil, fmt.Errorf("make a client for CertificateRequests: %w", err)
	}
	return &Signer{api: api, bare: bare, codec: runtime.NewParameterCodec(scheme)}, nil
}

func (s *Signer) requests(namespace string) requests {
	return gentype.NewClient("certificaterequests", s.api, s.codec, namespace, func() *cmapi.CertificateRequest { return &cmapi.CertificateRequest{} })
}

// Sign implements [signer.Signer].
func (s *Signer) Sign(ctx context.Context, req signer.Request) (signer.Issued, error) {
	wanted := object(req)
	client := s.requests(wanted.Namespace)
	found, err := s.submit(ctx, client, wanted, req)
	if err != nil {
		return signer.Issued{}, err
	}
	return wait(ctx, client, found)
}

// Forget implements [signer.Forgetter].
func (s *Signer) Forget(ctx context.Context, attempt signer.Attempt) error {
	err := s.requests(attempt.Pod.Namespace).Delete(ctx, name(attempt), metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return explain(err, "delete CertificateRequest "+attempt.Pod.Namespace+"/"+name(attempt))
	}
	return nil
}

// object is the CertificateRequest of an attempt. The pod owns it, so that nothing outlives the pod.
func object(req signer.Request) *cmapi.CertificateRequest {
	pod := req.Attempt.Pod
	usages := make([]cmapi.KeyUsage, len(req.Usages))
	for i, u := range req.Usages {
		usages[i] = cmapi.KeyUsage(u)
	}
	return &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name(req.Attempt),
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

// name is the attempt's object: the pod's name for who reads a list, and the attempt's id, which makes it unique.
func name(attempt signer.Attempt) string {
	const longest = 253 // A DNS subdomain (k8s.io/apimachinery pkg/util/validation).
	prefix := attempt.Pod.Name
	prefix = prefix[:min(len(prefix), longest-1-len(attempt.ID))]
	return strings.TrimRight(prefix, "-.") + "-" + attempt.ID
}

// create creates the object, as the pod if there is a token of it.
func (s *Signer) create(ctx context.Context, client requests, wanted *cmapi.CertificateRequest, token signer.Token) (*cmapi.CertificateRequest, error) {
	if token == "" {
		return client.Create(ctx, wanted, metav1.CreateOptions{})
	}
	created := &cmapi.CertificateRequest{}
	err := s.bare.Post().Namespace(wanted.Namespace).Resource("certificaterequests").
		SetHeader("Authorization", "Bearer "+string(token)).Body(wanted).Do(ctx).Into(created)
	return created, err
}

// submit creates the object, or finds the one that an earlier call created.
func (s *Signer) submit(ctx context.Context, client requests, wanted *cmapi.CertificateRequest, req signer.Request) (*cmapi.CertificateRequest, error) {
	doing := "create CertificateRequest " + title(wanted)
	if req.Token != "" {
		doing += fmt.Sprintf(" as service account %s/%s", req.Attempt.Pod.Namespace, req.Attempt.Pod.ServiceAccount)
	}
	created, err := s.create(ctx, client, wanted, req.Token)
	switch {
	case err == nil:
		return created, nil
	case !apierrors.IsAlreadyExists(err):
		return nil, explain(err, doing)
	}
	found, err := client.Get(ctx, wanted.Name, metav1.GetOptions{})
	switch {
	case err != nil:
		return nil, explain(err, "read CertificateRequest "+title(wanted))
	case !ours(found, wanted):
		return nil, signer.Errorf(signer.Failed, "CertificateRequest %s is not as it was created: its spec was changed", title(wanted))
	}
	return found, nil
}

// ours reports whether found asks for what we asked for.
func ours(found, wanted *cmapi.CertificateRequest) bool {
	return bytes.Equal(found.Spec.Request, wanted.Spec.Request) && found.Spec.IssuerRef == wanted.Spec.IssuerRef && found.Spec.IsCA == wanted.Spec.IsCA
}

func title(cr *cmapi.CertificateRequest) string { return cr.Namespace + "/" + cr.Name }

// explain is the API server's answer in the terms of the contract.
func explain(err error, doing string) *signer.Error {
	kind := signer.Unavailable
	switch {
	case apierrors.IsForbidden(err):
		kind = signer.Denied // RBAC, an admission policy, or a namespace that is going.
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsRequestEntityTooLargeError(err):
		kind = signer.Invalid
	}
	return signer.Errorf(kind, "%s: %w", doing, plain(err))
}

// plain is err without the URL, which is that of the object that the message names, and with words for a connection that failed.
func plain(err error) error {
	var failed *url.Error
	if !errors.As(err, &failed) {
		return err
	}
	if errors.As(failed.Err, new(*net.OpError)) || errors.Is(failed.Err, io.EOF) {
		return fmt.Errorf("the API server did not answer: %w", failed.Err)
	}
	return failed.Err
}

// age is for how long the API server has had the object.
func age(cr *cmapi.CertificateRequest, now time.Time) time.Duration {
	return now.Sub(cr.CreationTimestamp.Time)
}
