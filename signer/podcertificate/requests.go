package podcertificate

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer/object"
)

// requests is a client for a node's PodCertificateRequests: it may list and watch no others (kubernetes
// plugin/pkg/auth/authorizer/node, authorizePodCertificateRequest).
type requests struct {
	object.Client[podCertificateRequest]
	node string
}

// in returns a client for those in a namespace.
func (r requests) in(namespace string) requests {
	r.Client = r.In(namespace)
	return r
}

// Create implements [decision.Client].
func (r requests) Create(ctx context.Context, wanted *podCertificateRequest) (*podCertificateRequest, error) {
	created, err := r.Client.Create(ctx, wanted)
	return created, hint(err, r.node)
}

// Get implements [decision.Client]. It lists one object: the API server authorizes a node's get by a graph that lags
// behind, and answers "forbidden" for a request that was deleted (kubernetes plugin/pkg/auth/authorizer/node).
func (r requests) Get(ctx context.Context, name, resourceVersion string) (*podCertificateRequest, error) {
	found, err := r.Find(ctx, name, resourceVersion)
	if err != nil {
		return nil, hint(err, r.node)
	}
	if len(found) == 0 {
		return nil, apierrors.NewNotFound(version().WithResource(resource).GroupResource(), name)
	}
	return &found[0], nil
}

// hint adds to an error of the API server what the cluster lacks.
func hint(err error, node string) error {
	if err == nil {
		return nil
	}
	const rights = "manifests/modes/pod-certificate/node.yaml"
	contains := func(text string) bool { return strings.Contains(err.Error(), text) }
	switch {
	// An API server before Kubernetes 1.36 knows no impersonation of nodes as such, but only of users.
	case apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse),
		apierrors.IsForbidden(err) && contains(fmt.Sprintf("User %q cannot create resource %q", user(node), resource)),
		apierrors.IsForbidden(err) && contains(`cannot impersonate resource "users"`):
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
