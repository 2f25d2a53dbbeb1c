// Package bridge signs PodCertificateRequests (certificates.k8s.io): those of Mayfly's node plugins, and those of the kubelets for the podCertificate volumes of
// Kubernetes.
//
// The API server lets a node ask for its own pods alone. All else is derived from the pod's spec, which no node writes, and nothing of a certificate is taken from
// the request but its key. A CA of the controller signs, or the cert-manager issuer that the volume names.
package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/prometheus/client_golang/prometheus"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/mayfly-csi/mayfly/signer/ca"
	"github.com/mayfly-csi/mayfly/signer/controller/proof"
	"github.com/mayfly-csi/mayfly/signer/message"
)

// Config is what a bridge is made of. All fields are required but those that say otherwise.
type Config struct {
	Court         proof.Court
	ClusterDomain string        // Of the names of pods.
	Requests      client.Client // PodCertificateRequests and CertificateRequests may come from a cache, which [Trim] and [Keep] have looked through.
	CAs           CAs
	OwnCA         string // The name of the controller's own CA.
	Self          string // The user that the controller is for the API server.

	Events  Events
	Metrics prometheus.Registerer
	Log     *slog.Logger
}

// CAs are those of the controller.
type CAs interface {
	// Get is the CA that signs for a signer now. The error says what its operator can do.
	Get(ctx context.Context, signer string) (ca.CA, error)
}

// Events tell a pod's author and the operator what became of a request. client-go's recorder is one.
type Events interface {
	Eventf(regarding, related runtime.Object, kind, reason, action, note string, args ...any)
}

// A Bridge signs. Several may run at once: who is second finds the request answered. Make one with [New].
type Bridge struct {
	Config
	answers *prometheus.CounterVec
}

const (
	// again is when a request is looked at once more that waits for what is not visible yet.
	again = time.Second
	// later is when a request is looked at once more that waits for an operator.
	later = 15 * time.Second
)

// New makes a bridge.
func New(config Config) (*Bridge, error) {
	b := &Bridge{Config: config, answers: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mayfly_controller_pod_certificates_total", Help: "PodCertificateRequests that were answered, by the condition and its reason.",
	}, []string{"outcome", "reason"})}
	if err := config.Metrics.Register(b.answers); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return b, nil
}

// Add makes the manager run the bridge, in every replica.
func (b *Bridge) Add(to manager.Manager) error {
	controller := builder.ControllerManagedBy(to).Named("bridge").
		For(&certificatesv1.PodCertificateRequest{}, builder.WithPredicates(predicate.NewPredicateFuncs(func(o client.Object) bool {
			pcr, ok := o.(*certificatesv1.PodCertificateRequest)
			return ok && ours(pcr)
		}))).
		Owns(&cmapi.CertificateRequest{}, builder.MatchEveryOwner).
		WithOptions(proof.Everywhere())
	reviews().Watch(to.GetClient(), controller, b.Court.Changes)
	if err := controller.Complete(b); err != nil {
		return fmt.Errorf("add the bridge: %w", err)
	}
	return nil
}

// reviews returns the denied requests that may be approved some day.
func reviews() proof.Review {
	return proof.Review{List: &certificatesv1.PodCertificateRequestList{}, Is: func(o client.Object) bool {
		pcr, ok := o.(*certificatesv1.PodCertificateRequest)
		return ok && denied(pcr)
	}}
}

// Trim leaves of a PodCertificateRequest in a cache what a bridge looks at: nothing of another signer's, and of an answered one that it is answered, but for
// [reviews].
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
	return pcr, nil
}

// Reconcile answers one request.
func (b *Bridge) Reconcile(ctx context.Context, of reconcile.Request) (reconcile.Result, error) {
	pcr := &certificatesv1.PodCertificateRequest{}
	if err := b.Requests.Get(ctx, of.NamespacedName, pcr); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	switch {
	case !ours(pcr) || pcr.DeletionTimestamp != nil:
		return reconcile.Result{}, nil
	case answered(pcr): // Not sooner: a request that is not known to be answered would be passed on again.
		return reconcile.Result{}, errors.Join(b.tidy(ctx, pcr), b.review(ctx, pcr))
	}
	if waits, err := b.waits(ctx, pcr); err != nil || waits {
		return reconcile.Result{}, err
	}
	verdict, err := b.Court.Judge(ctx, b.claim(pcr))
	switch {
	case err != nil:
		return reconcile.Result{}, err
	case verdict.Outcome == proof.Wait:
		return reconcile.Result{RequeueAfter: again}, nil
	case verdict.Outcome == proof.Deny && mayChange(pcr, verdict):
		b.complain(pcr, verdict.Reason, verdict.Message)
		return reconcile.Result{RequeueAfter: later}, nil
	case verdict.Outcome == proof.Deny:
		return reconcile.Result{}, b.deny(ctx, pcr, verdict)
	}
	return b.issue(ctx, pcr, *verdict.Volume)
}

// mayChange reports whether a denial may not be the last word. Policies change, and where they say that IPs may lie; and so do flags and profiles, by which a
// volume is understood.
func mayChange(pcr *certificatesv1.PodCertificateRequest, v proof.Verdict) bool {
	return native(pcr) && slices.Contains([]string{proof.NotAllowed, proof.IPNotProved, proof.NotUnderstood}, v.Reason)
}

// complain tells the pod why its request waits.
func (b *Bridge) complain(pcr *certificatesv1.PodCertificateRequest, reason, message string) {
	b.Log.Warn("pod certificate waits", "request", pcr.Namespace+"/"+pcr.Name, "node", pcr.Spec.NodeName, "reason", reason, "message", message)
	b.tell(pod(pcr), pcr, reason, "SignPodCertificate", message)
}

// tell makes an event. The API server takes none with a long note.
func (b *Bridge) tell(regarding, related runtime.Object, reason, action, text string) {
	b.Events.Eventf(regarding, related, corev1.EventTypeWarning, reason, action, "%s", message.Cut(text, message.Longest))
}
