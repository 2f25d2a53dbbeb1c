// Package podcertificate is a signer that acts as the node: it creates a PodCertificateRequest (certificates.k8s.io)
// for each attempt, as the node that it runs on, and waits for mayfly-controller's decision.
//
// The API server lets a caller impersonate the node to which its token is bound (KEP-5284, associated-node), and a
// node request certificates for its own pods (kubernetes plugin/pkg/admission/noderestriction). So these requests
// give the node plugin no power that its kubelet does not have.
package podcertificate

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/decision"
)

// A Signer signs through PodCertificateRequests. It implements [signer.Signer] and [signer.Rememberer], but not
// [signer.Forgetter]: a node may not delete its requests, and kube-controller-manager deletes them after 15 minutes
// (kubernetes pkg/controller/certificates/cleaner/pcrcleaner.go).
type Signer struct {
	node     string
	requests func(namespace string) client
	meta     metadata.Interface
	rights   *decision.Rights          // Of the node plugin itself.
	nodeUID  atomic.Pointer[types.UID] // As it was last read.
}

// New makes a signer on the API server of config for the pods of a node, without a rate limit: the node plugin limits
// its requests itself.
func New(config *rest.Config, node string) (*Signer, error) {
	rights, err := decision.NewRights(config, needed()...)
	if err != nil {
		return nil, err
	}
	config = AsNode(config, node)
	config.QPS = -1 // k8s.io/client-go rest/config.go: a negative rate is no limit.
	requests, err := newRequests(config, node)
	if err != nil {
		return nil, fmt.Errorf("make a client for PodCertificateRequests: %w", err)
	}
	meta, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for nodes and service accounts: %w", err)
	}
	return &Signer{node: node, requests: requests, meta: meta, rights: rights}, nil
}

// needed returns the rights that the node plugin needs to create a request as its node, of those that an operator gives
// it. The node's own are another's to ask for.
func needed() []decision.Right {
	const as = "impersonate-on:associated-node:"
	return []decision.Right{
		{Verb: "impersonate:associated-node", Group: authenticationv1.GroupName, Resource: "nodes"},
		{Verb: as + "get", Resource: "nodes"},
		{Verb: as + "get", Resource: "serviceaccounts"},
		{Verb: as + "create", Group: certificatesv1.GroupName, Resource: resource},
	}
}

// AsNode returns config with impersonation of a node. The caller's token must be bound to a pod on it. Only the name
// may be set: the API server sets groups and all else (k8s.io/apiserver pkg/endpoints/filters/impersonation/mode.go,
// onlyUsernameSet).
func AsNode(config *rest.Config, node string) *rest.Config {
	config = rest.CopyConfig(config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user(node)}
	return config
}

// user returns a node's user name.
func user(node string) string { return "system:node:" + node }

// Sign implements [signer.Signer].
func (s *Signer) Sign(ctx context.Context, req signer.Request) (signer.Issued, error) {
	requests := s.requests(req.Attempt.Pod.Namespace)
	found, err := s.submit(ctx, requests, req)
	if err != nil {
		return signer.Issued{}, s.rights.WhenGranted(err, decision.Account{Namespace: req.Attempt.Pod.Namespace})
	}
	return kind().Await(ctx, requests, found)
}

// Refused implements [signer.Rememberer].
func (s *Signer) Refused(ctx context.Context, attempt signer.Attempt) error {
	namespace := attempt.Pod.Namespace
	return kind().Refused(ctx, s.requests(namespace), namespace, attempt.ObjectName())
}

// submit submits the attempt's request. A wrong UID is an internal error to the API server (noderestriction,
// admitPodCertificateRequest: its own cache might be behind), so after an internal error it reads the UIDs again.
func (s *Signer) submit(
	ctx context.Context, requests client, req signer.Request,
) (*certificatesv1.PodCertificateRequest, error) {
	known, err := s.uids(ctx, req.Attempt.Pod, metav1.GetOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, err
	}
	found, err := submit(ctx, requests, s.object(req, known))
	if !apierrors.IsInternalError(err) {
		return found, err
	}
	s.nodeUID.Store(nil)
	current, readErr := s.uids(ctx, req.Attempt.Pod, metav1.GetOptions{})
	if readErr != nil || current == known {
		return nil, err
	}
	return submit(ctx, requests, s.object(req, current))
}

// submit submits a request.
func submit(
	ctx context.Context, requests client, wanted *certificatesv1.PodCertificateRequest,
) (*certificatesv1.PodCertificateRequest, error) {
	return kind().Submit(ctx, requests, wanted, "create "+kind().Title(wanted))
}

// uids holds the UIDs in a request other than the pod's.
type uids struct{ node, account types.UID }

// uids reads the UIDs, that of the node once.
func (s *Signer) uids(ctx context.Context, pod signer.Pod, o metav1.GetOptions) (read uids, err error) {
	accounts := s.meta.Resource(corev1.SchemeGroupVersion.WithResource("serviceaccounts")).Namespace(pod.Namespace)
	title := "service account " + pod.Namespace + "/" + pod.ServiceAccount
	if read.account, err = s.uid(ctx, accounts, pod.ServiceAccount, o, title); err != nil {
		return read, err
	}
	if last := s.nodeUID.Load(); last != nil {
		read.node = *last
		return read, nil
	}
	nodes := s.meta.Resource(schema.GroupVersionResource{Version: "v1", Resource: "nodes"})
	if read.node, err = s.uid(ctx, nodes, s.node, o, "node "+s.node); err == nil {
		s.nodeUID.Store(&read.node)
	}
	return read, err
}

// uid reads the UID of an object. title names it in errors.
func (s *Signer) uid(
	ctx context.Context, from metadata.ResourceInterface, name string, o metav1.GetOptions, title string,
) (types.UID, error) {
	object, err := from.Get(ctx, name, o)
	if err != nil {
		return "", decision.Explain(hint(err, s.node), "read "+title)
	}
	return object.UID, nil
}

// object returns the PodCertificateRequest of an attempt. The pod owns it, as it owns its kubelet's. It has neither
// issuer nor usages: the signer takes them from the pod's spec.
func (s *Signer) object(req signer.Request, known uids) *certificatesv1.PodCertificateRequest {
	pod := req.Attempt.Pod
	seconds := int32(min(req.Duration/time.Second, math.MaxInt32)) // #nosec G115 -- It is in bounds.
	return &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Name: req.Attempt.ObjectName(), Namespace: pod.Namespace,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: types.UID(pod.UID),
			}},
		},
		Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName:                signer.PodCertificateSigner,
			PodName:                   pod.Name,
			PodUID:                    types.UID(pod.UID),
			ServiceAccountName:        pod.ServiceAccount,
			ServiceAccountUID:         known.account,
			NodeName:                  types.NodeName(s.node),
			NodeUID:                   known.node,
			MaxExpirationSeconds:      &seconds,
			StubPKCS10Request:         req.CSR,
			UnverifiedUserAnnotations: map[string]string{signer.VolumeAnnotation: req.Volume},
		},
	}
}
