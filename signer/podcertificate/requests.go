package podcertificate

import (
	"context"
	"fmt"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer/decision"
)

const resource = "podcertificaterequests"

type client = decision.Client[*certificatesv1.PodCertificateRequest]

// requests is a client for the PodCertificateRequests of a namespace, as a node.
type requests struct {
	*gentype.ClientWithList[*certificatesv1.PodCertificateRequest, *certificatesv1.PodCertificateRequestList]
	node string
}

// newRequests returns a function that makes clients for namespaces.
func newRequests(config *rest.Config, node string) (func(namespace string) client, error) {
	// client-go's clientset registers every kind of Kubernetes, which takes memory.
	scheme, version := runtime.NewScheme(), certificatesv1.SchemeGroupVersion
	scheme.AddKnownTypes(version, &certificatesv1.PodCertificateRequest{}, &certificatesv1.PodCertificateRequestList{})
	metav1.AddToGroupVersion(scheme, version)
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = "/apis", &version
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	api, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, err
	}
	codec := runtime.NewParameterCodec(scheme)
	return func(namespace string) client {
		return requests{gentype.NewClientWithList(resource, api, codec, namespace,
			func() *certificatesv1.PodCertificateRequest { return &certificatesv1.PodCertificateRequest{} },
			func() *certificatesv1.PodCertificateRequestList { return &certificatesv1.PodCertificateRequestList{} },
		), node}
	}, nil
}

// onNode restricts a selector to the node's requests: a node may list and watch no others (kubernetes
// plugin/pkg/auth/authorizer/node, authorizePodCertificateRequest).
func (r requests) onNode(selector string) string {
	return selector + "," + fields.OneTermEqualSelector("spec.nodeName", r.node).String()
}

// Create implements [decision.Client].
func (r requests) Create(
	ctx context.Context, wanted *certificatesv1.PodCertificateRequest, o metav1.CreateOptions,
) (*certificatesv1.PodCertificateRequest, error) {
	created, err := r.ClientWithList.Create(ctx, wanted, o)
	return created, hint(err, r.node)
}

// Get implements [decision.Client]. It lists one object: the API server authorizes a node's get by a graph that lags
// behind, and answers "forbidden" for a request that was deleted (kubernetes plugin/pkg/auth/authorizer/node).
func (r requests) Get(
	ctx context.Context, name string, o metav1.GetOptions,
) (*certificatesv1.PodCertificateRequest, error) {
	found, err := r.List(ctx, metav1.ListOptions{
		FieldSelector:   r.onNode(fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()),
		ResourceVersion: o.ResourceVersion,
	})
	if err != nil {
		return nil, hint(err, r.node)
	}
	if len(found.Items) == 0 {
		return nil, apierrors.NewNotFound(certificatesv1.Resource(resource), name)
	}
	return &found.Items[0], nil
}

// Watch implements [decision.Client].
func (r requests) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.FieldSelector = r.onNode(o.FieldSelector)
	w, err := r.ClientWithList.Watch(ctx, o)
	return w, hint(err, r.node)
}

// hint adds to an error of the API server what the cluster lacks.
func hint(err error, node string) error {
	if err == nil {
		return nil
	}
	const rights = "manifests/modes/pod-certificate/node.yaml"
	contains := func(text string) bool { return strings.Contains(err.Error(), text) }
	switch {
	case apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse),
		apierrors.IsForbidden(err) && contains(fmt.Sprintf("User %q cannot create resource %q", user(node), resource)):
		return fmt.Errorf("%w: --signer=pod-certificate needs PodCertificateRequests in certificates.k8s.io/v1, "+
			"which Kubernetes has from 1.37 on", err)
	case !apierrors.IsForbidden(err):
		return err
	case contains("associated-node"):
		return fmt.Errorf("%w: the node plugin lacks this right of %s", err, rights)
	case contains("impersonate"):
		return fmt.Errorf("%w: a token that is bound to a pod on node %s may impersonate it, and no other", err, node)
	case contains("does not mount a podCertificate projected volume"):
		return fmt.Errorf("%w: nodes lack the right to ask this signer, of %s", err, rights)
	}
	return err
}
