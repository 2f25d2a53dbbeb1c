// Package podcertificaterequests signs PodCertificateRequests (certificates.k8s.io): those of Mayfly's node plugins,
// and those of the kubelets for the podCertificate volumes of Kubernetes.
//
// The API server lets a node ask for its own pods alone. All else is derived from the pod's spec, which no node writes,
// and nothing of a certificate is taken from the request but its key. A CA of the controller signs, or the cert-manager
// issuer that the volume names.
package podcertificaterequests

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/mayfly-csi/mayfly/signer/ca"
	"github.com/mayfly-csi/mayfly/signer/controller/audit"
	"github.com/mayfly-csi/mayfly/signer/controller/cluster"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/message"
)

// Config is what a signer is made of. All fields but Audit are required.
type Config struct {
	Decider  cluster.Decider
	Requests client.Client // Requests of both APIs may come from a cache, which [Trim] and [Keep] have looked through.
	CAs      CAs
	OwnCA    string // The name of the controller's own CA.
	Self     string // The user that the controller is for the API server.

	Events  cluster.Events
	Audit   *audit.Log // nil: none.
	Holder  Holder     // Of the right to record what became of deleted requests.
	Metrics prometheus.Registerer
	Log     *slog.Logger
}

// A Holder may hold the right to record what became of deleted requests, which one replica has.
type Holder interface {
	Holds() bool
	cluster.Turn
}

// CAs are those of the controller.
type CAs interface {
	// Get is the CA that signs for a signer now. The error says what its operator can do.
	Get(ctx context.Context, signer string) (ca.CA, error)
}

// A Signer signs. Several may run at once: one answers first, and the others find the request answered. Make one with
// [New].
type Signer struct {
	Config
	answers  *prometheus.CounterVec
	followed cluster.Followed
}

const (
	// again is when a request is looked at once more that waits for what is not visible yet.
	again = time.Second
	// soonest and latest are when a request is looked at once more that waits for an operator.
	soonest, latest = 15 * time.Second, time.Minute
)

// New makes a signer. It panics if the registry has its metrics already.
func New(config Config) *Signer {
	return &Signer{Config: config, answers: promauto.With(config.Metrics).NewCounterVec(prometheus.CounterOpts{
		Name: "mayfly_controller_pod_certificates_total",
		Help: "PodCertificateRequests that were answered, by the condition and its reason.",
	}, []string{"outcome", "reason"})}
}

// Add makes the manager run the controller, in every replica.
func (s *Signer) Add(to manager.Manager) error {
	concerns := predicate.NewPredicateFuncs(func(o client.Object) bool {
		pcr, ok := o.(*certificatesv1.PodCertificateRequest)
		return ok && ours(pcr)
	})
	owner := handler.EnqueueRequestForOwner(to.GetScheme(), to.GetRESTMapper(), &certificatesv1.PodCertificateRequest{})
	controller := builder.ControllerManagedBy(to).Named("podcertificaterequests").
		Watches(&certificatesv1.PodCertificateRequest{}, cluster.Delayed(s.wait, &handler.EnqueueRequestForObject{}),
			builder.WithPredicates(concerns)).
		Watches(&cmapi.CertificateRequest{}, cluster.Delayed(s.wait, owner)).
		Watches(&certificatesv1.PodCertificateRequest{}, s.deletions()).
		WithOptions(cluster.Options(s.nodeOf))
	reviews().Watch(to.GetClient(), controller, s.Decider.Changes)
	if err := controller.Complete(s); err != nil {
		return fmt.Errorf("add the controller of PodCertificateRequests: %w", err)
	}
	return nil
}

// wait returns how long an event of a request of either kind waits. A CertificateRequest that is not approved yet is
// being approved by the one who has just made it.
func (s *Signer) wait(of client.Object) time.Duration {
	if cr, ok := of.(*cmapi.CertificateRequest); ok && !decided(cr) {
		return again
	}
	return cluster.Wait(s.Holder)
}

// reviews returns the requests that may be approved some day: those that were denied, and those that wait.
func reviews() cluster.Review {
	return cluster.Review{List: &certificatesv1.PodCertificateRequestList{}, Is: func(o client.Object) bool {
		pcr, ok := o.(*certificatesv1.PodCertificateRequest)
		return ok && (denied(pcr) || waits(pcr))
	}}
}

// Trim leaves of a PodCertificateRequest in a cache what a controller looks at: nothing of another signer's, and of an
// answered one that it is answered, but for [reviews].
func Trim(object any) (any, error) {
	pcr, ok := object.(*certificatesv1.PodCertificateRequest)
	if !ok {
		return object, nil
	}
	pcr.ManagedFields = nil
	if !ours(pcr) || answered(pcr) && !denied(pcr) {
		pcr.Annotations, pcr.Labels, pcr.OwnerReferences = nil, nil, nil
		pcr.Spec = certificatesv1.PodCertificateRequestSpec{SignerName: pcr.Spec.SignerName}
		pcr.Status = certificatesv1.PodCertificateRequestStatus{Conditions: pcr.Status.Conditions}
	}
	if size(pcr) > cluster.MaxCached {
		pcr.Annotations, pcr.Labels, pcr.OwnerReferences = nil, nil, nil
		pcr.Spec.StubPKCS10Request, pcr.Spec.UnverifiedUserAnnotations = nil, nil
	}
	return pcr, nil
}

// size returns the bytes of what a node may write at length.
func size(pcr *certificatesv1.PodCertificateRequest) int {
	asked := &metav1.PartialObjectMetadata{}
	asked.Annotations = pcr.Spec.UnverifiedUserAnnotations
	return cluster.Size(pcr, pcr.Spec.StubPKCS10Request) + cluster.Size(asked)
}

// nodeOf returns the node that asks in a request, as the cache has it; empty: it is gone.
func (s *Signer) nodeOf(of reconcile.Request) string {
	pcr := &certificatesv1.PodCertificateRequest{}
	asItIs := &client.GetOptions{UnsafeDisableDeepCopy: new(true)} // It is only read.
	if err := s.Requests.Get(context.Background(), of.NamespacedName, pcr, asItIs); err != nil {
		return ""
	}
	return string(pcr.Spec.NodeName)
}

// Reconcile answers one request.
func (s *Signer) Reconcile(ctx context.Context, of reconcile.Request) (reconcile.Result, error) {
	defer s.followed.Begin(s.Holder)()
	pcr := &certificatesv1.PodCertificateRequest{}
	if err := s.Requests.Get(ctx, of.NamespacedName, pcr); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	switch {
	case !ours(pcr) || pcr.DeletionTimestamp != nil:
		return reconcile.Result{}, nil
	case answered(pcr): // Not before: a request that is not known to be answered would be passed on again.
		if err := s.deletePassed(ctx, pcr); err != nil || !denied(pcr) {
			return reconcile.Result{}, err
		}
	default:
		if passed, err := s.atIssuer(ctx, pcr); err != nil || passed {
			return reconcile.Result{}, err
		}
	}
	if wait := s.Decider.Limits.Wait(recordOf(pcr, decide.Decision{}), pcr.CreationTimestamp.Time); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	if len(pcr.Spec.StubPKCS10Request) == 0 { // It was trimmed.
		var list certificatesv1.PodCertificateRequestList
		if err := s.Decider.Whole(ctx, of.NamespacedName, &list); err != nil || len(list.Items) == 0 {
			return reconcile.Result{}, err
		}
		pcr = &list.Items[0]
	}
	if answered(pcr) {
		return reconcile.Result{}, s.review(ctx, pcr)
	}
	d, err := s.Decider.Decide(ctx, request(pcr))
	switch {
	case err != nil:
		return reconcile.Result{}, err
	case d.Verdict == decide.Wait:
		return reconcile.Result{RequeueAfter: again}, nil
	case d.Verdict == decide.Deny && mayChange(pcr, d):
		s.reportWaiting(pcr, d.Reason, d.Message)
		return reconcile.Result{RequeueAfter: later(pcr)}, nil
	case d.Verdict == decide.Deny:
		return reconcile.Result{}, s.deny(ctx, pcr, d)
	}
	return s.issue(ctx, pcr, d)
}

// later returns when to look once more at a request that waits for an operator: after as long again as it has waited.
func later(pcr *certificatesv1.PodCertificateRequest) time.Duration {
	return min(max(time.Since(pcr.CreationTimestamp.Time), soonest), latest)
}

// mayChange reports whether a denial may not be the last word. Policies change, and where they say that IPs may lie;
// and so do flags and profiles, by which a volume is parsed.
func mayChange(pcr *certificatesv1.PodCertificateRequest, d decide.Decision) bool {
	reasons := []string{decide.NotAllowed, decide.IPNotProved, decide.NotUnderstood}
	return native(pcr) && slices.Contains(reasons, d.Reason)
}

// reportWaiting logs why a request waits, and makes an event of its pod.
func (s *Signer) reportWaiting(pcr *certificatesv1.PodCertificateRequest, reason, message string) {
	s.Log.Warn("pod certificate waits", "request", pcr.Namespace+"/"+pcr.Name, "node", pcr.Spec.NodeName,
		"reason", reason, "message", message)
	s.sendEvent(pod(pcr), pcr, reason, "SignPodCertificate", message)
}

// sendEvent makes an event. The API server takes none with a long note.
func (s *Signer) sendEvent(regarding, related runtime.Object, reason, action, text string) {
	text = message.Cut(text, message.Longest)
	s.Events.Eventf(regarding, related, corev1.EventTypeWarning, reason, action, "%s", text)
}
