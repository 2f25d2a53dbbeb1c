// Package podcertificate is a signer that acts as the node: it creates a PodCertificateRequest (certificates.k8s.io)
// for each attempt, as the node that it runs on, and waits for mayfly-controller's decision.
//
// The API server lets a caller impersonate the node to which its token is bound (KEP-5284, associated-node), and a
// node request certificates for its own pods (kubernetes plugin/pkg/admission/noderestriction). So these requests
// give the node plugin no power that its kubelet does not have.
package podcertificate

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/decision"
	"github.com/mayfly-csi/mayfly/signer/object"
)

// A Signer signs through PodCertificateRequests. It implements [signer.Signer] and [signer.Rememberer], but not
// [signer.Forgetter]: a node may not delete its requests, and kube-controller-manager deletes them after 15 minutes
// (kubernetes pkg/controller/certificates/cleaner/pcrcleaner.go).
type Signer struct {
	requests requests
	nodes    object.Client[identity]
	accounts object.Client[identity]
	rights   *decision.Rights       // Of the node plugin itself.
	nodeUID  atomic.Pointer[string] // As it was last read.
}

// An identity is an object's metadata.
type identity struct {
	object.Meta `json:"metadata"`
}

// New makes a signer on the API server of config for the pods of a node.
func New(config *rest.Config, node string) (*Signer, error) {
	rights, rightsErr := decision.NewRights(config, needed()...)
	config = AsNode(config, node)
	api, err := object.Connect(config, version(), nil)
	core, coreErr := object.Connect(config, schema.GroupVersion{Version: "v1"}, nil)
	if err := errors.Join(rightsErr, err, coreErr); err != nil {
		return nil, err
	}
	ofNode := object.New[podCertificateRequest](api, resource).Where("spec.nodeName", node)
	return &Signer{
		requests: requests{ofNode, node},
		nodes:    object.New[identity](core, "nodes").MetaOnly(),
		accounts: object.New[identity](core, "serviceaccounts").MetaOnly(),
		rights:   rights,
	}, nil
}

// needed returns the rights that the node plugin needs to create a request as its node, of those that an operator gives
// it. The node's own are another's to ask for.
func needed() []decision.Right {
	const as = "impersonate-on:associated-node:"
	return []decision.Right{
		{Verb: "impersonate:associated-node", Group: "authentication.k8s.io", Resource: "nodes"},
		{Verb: as + "get", Resource: "nodes"},
		{Verb: as + "get", Resource: "serviceaccounts"},
		{Verb: as + "create", Group: version().Group, Resource: resource},
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
	requests := s.requests.in(req.Attempt.Pod.Namespace)
	found, err := s.submit(ctx, requests, req)
	if err != nil {
		return signer.Issued{}, s.rights.WhenGranted(err, decision.Account{Namespace: req.Attempt.Pod.Namespace})
	}
	return kind().Await(ctx, requests, found)
}

// Refused implements [signer.Rememberer].
func (s *Signer) Refused(ctx context.Context, attempt signer.Attempt) error {
	namespace := attempt.Pod.Namespace
	return kind().Refused(ctx, s.requests.in(namespace), namespace, ObjectName(attempt))
}

// ObjectName returns the name of an attempt's PodCertificateRequest. The controller passes it on in a
// CertificateRequest of that name, so no node plugin of another mode may use it: an attempt outlives a change of the
// mode, and may have a CertificateRequest from before.
func ObjectName(attempt signer.Attempt) string {
	attempt.ID += "-pcr"
	return attempt.ObjectName()
}

// submit submits the attempt's request. A wrong UID is an internal error to the API server (noderestriction,
// admitPodCertificateRequest: its own cache might be behind), so after an internal error it reads the UIDs again.
func (s *Signer) submit(
	ctx context.Context, requests requests, req signer.Request,
) (*podCertificateRequest, error) {
	known, err := s.uids(ctx, req.Attempt.Pod, "0")
	if err != nil {
		return nil, err
	}
	found, err := submit(ctx, requests, s.object(req, known))
	if !apierrors.IsInternalError(err) {
		return found, err
	}
	s.nodeUID.Store(nil)
	current, readErr := s.uids(ctx, req.Attempt.Pod, "")
	if readErr != nil || current == known {
		return nil, err
	}
	return submit(ctx, requests, s.object(req, current))
}

// submit submits a request.
func submit(ctx context.Context, requests requests, wanted *podCertificateRequest) (*podCertificateRequest, error) {
	return kind().Submit(ctx, requests, wanted, "create "+kind().Title(wanted))
}

// uids holds the UIDs in a request other than the pod's.
type uids struct{ node, account string }

// uids reads the UIDs, that of the node once.
func (s *Signer) uids(ctx context.Context, pod signer.Pod, resourceVersion string) (read uids, err error) {
	accounts := s.accounts.In(pod.Namespace)
	title := "service account " + pod.Namespace + "/" + pod.ServiceAccount
	if read.account, err = s.uid(ctx, accounts, pod.ServiceAccount, resourceVersion, title); err != nil {
		return read, err
	}
	if last := s.nodeUID.Load(); last != nil {
		read.node = *last
		return read, nil
	}
	node := s.requests.node
	if read.node, err = s.uid(ctx, s.nodes, node, resourceVersion, "node "+node); err == nil {
		s.nodeUID.Store(&read.node)
	}
	return read, err
}

// uid reads the UID of an object. title names it in errors.
func (s *Signer) uid(
	ctx context.Context, from object.Client[identity], name, resourceVersion, title string,
) (string, error) {
	found, err := from.Get(ctx, name, resourceVersion)
	if err != nil {
		return "", decision.Explain(hint(err, s.requests.node), "read "+title)
	}
	return found.UID, nil
}

// object returns the PodCertificateRequest of an attempt. The pod owns it, as it owns its kubelet's. It has neither
// issuer nor usages: the signer takes them from the pod's spec.
func (s *Signer) object(req signer.Request, known uids) *podCertificateRequest {
	pod := req.Attempt.Pod
	seconds := int32(min(req.Duration/time.Second, math.MaxInt32)) // #nosec G115 -- It is in bounds.
	return &podCertificateRequest{
		TypeMeta: metav1.TypeMeta{Kind: "PodCertificateRequest", APIVersion: version().String()},
		Meta: object.Meta{
			Name: ObjectName(req.Attempt), Namespace: pod.Namespace,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: types.UID(pod.UID),
			}},
		},
		Spec: spec{
			SignerName:                signer.PodCertificateSigner,
			PodName:                   pod.Name,
			PodUID:                    pod.UID,
			ServiceAccountName:        pod.ServiceAccount,
			ServiceAccountUID:         known.account,
			NodeName:                  s.requests.node,
			NodeUID:                   known.node,
			MaxExpirationSeconds:      seconds,
			StubPKCS10Request:         req.CSR,
			UnverifiedUserAnnotations: map[string]string{signer.VolumeAnnotation: req.Volume},
		},
	}
}
