package approver

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/proof"
)

// Config is what an approver is made of. All fields are required but those that say otherwise.
type Config struct {
	Callers
	Court    proof.Court
	Requests client.Client // CertificateRequests may come from a cache, which [Callers.Trim] has trimmed.
	Events   Events

	Metrics prometheus.Registerer
	Log     *slog.Logger
}

// Events tell of denials, in `kubectl describe`. Approvals are not told: they would be a write more for each certificate.
type Events interface {
	Eventf(regarding, related runtime.Object, kind, reason, action, note string, args ...any)
}

// An Approver decides on requests. Several may run at once: who is second finds the request changed. Make one with [New].
type Approver struct {
	Config
	decisions *prometheus.CounterVec
}

// again is when a request is looked at once more that waits for what is not visible yet.
const again = time.Second

// New makes an approver.
func New(config Config) (*Approver, error) {
	a := &Approver{Config: config, decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mayfly_controller_decisions_total", Help: "Requests of node plugins that were approved or denied, by the reason.",
	}, []string{"outcome", "reason"})}
	if err := config.Metrics.Register(a.decisions); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return a, nil
}

// Add makes the manager run the approver, in every replica.
func (a *Approver) Add(to manager.Manager) error {
	concerns, reviews := predicate.NewPredicateFuncs(func(o client.Object) bool {
		cr, ok := o.(*cmapi.CertificateRequest)
		return ok && a.Concern(cr)
	}), a.reviews()
	b := builder.ControllerManagedBy(to).Named("approver").
		For(&cmapi.CertificateRequest{}, builder.WithPredicates(predicate.Or(concerns, reviews.AtStart()))).
		WithOptions(proof.Everywhere())
	reviews.Watch(to.GetClient(), b, a.Court.Changes)
	if err := b.Complete(a); err != nil {
		return fmt.Errorf("add the approver: %w", err)
	}
	return nil
}

// reviews returns the denied requests that may be approved some day.
func (c Callers) reviews() proof.Review {
	return proof.Review{List: &cmapi.CertificateRequestList{}, Is: func(o client.Object) bool {
		cr, ok := o.(*cmapi.CertificateRequest)
		return ok && c.denied(cr)
	}}
}

// Trim leaves of a request in a cache what an approver looks at: of those that do not concern it, that they don't.
func (c Callers) Trim(object any) (any, error) {
	cr, ok := object.(*cmapi.CertificateRequest)
	if !ok {
		return object, nil
	}
	cr.ManagedFields = nil
	if !c.Concern(cr) && !c.denied(cr) {
		cr.Annotations, cr.Labels, cr.OwnerReferences = nil, nil, nil
		cr.Spec = cmapi.CertificateRequestSpec{}
		cr.Status = cmapi.CertificateRequestStatus{}
	}
	return cr, nil
}

// Reconcile decides on one request.
func (a *Approver) Reconcile(ctx context.Context, of reconcile.Request) (reconcile.Result, error) {
	cr := &cmapi.CertificateRequest{}
	if err := a.Requests.Get(ctx, of.NamespacedName, cr); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	switch {
	case a.denied(cr):
		return a.review(ctx, cr)
	case !a.Concern(cr):
		return reconcile.Result{}, nil
	}
	verdict, err := a.decide(ctx, cr)
	switch {
	case err != nil:
		return reconcile.Result{}, err
	case verdict.Outcome == proof.Wait:
		return reconcile.Result{RequeueAfter: again}, nil
	}
	written, err := a.conclude(ctx, cr, verdict)
	if written && verdict.Outcome == proof.Deny && proof.MayEnd(verdict.Reason) { // A policy may have changed meanwhile.
		return reconcile.Result{RequeueAfter: again}, nil
	}
	return reconcile.Result{}, err
}

// review looks at a denied request again. If it would be approved now it says so, for its node plugin: it can't be approved any more, but another one can.
func (a *Approver) review(ctx context.Context, cr *cmapi.CertificateRequest) (reconcile.Result, error) {
	verdict, err := a.decide(ctx, cr)
	if err != nil || verdict.Outcome != proof.Approve {
		return reconcile.Result{}, err
	}
	const message = "another request like this one would be approved now"
	written, err := a.add(ctx, cr, signer.Approvable, verdict.Reason, message)
	if err == nil && !written { // cert-manager writes conditions, too.
		return reconcile.Result{RequeueAfter: again}, nil
	}
	if written {
		a.Log.Info("denied request would be approved now", "request", cr.Namespace+"/"+cr.Name)
	}
	return reconcile.Result{}, err
}

// decide returns the verdict on a request.
func (a *Approver) decide(ctx context.Context, cr *cmapi.CertificateRequest) (proof.Verdict, error) {
	claim, err := a.claim(cr)
	if err != nil {
		return proof.Denied(err), nil
	}
	return a.Court.Judge(ctx, claim)
}

// conclude writes the decision down, if the request is still the one that was decided on. Whoever changed it has the approver look at it again.
func (a *Approver) conclude(ctx context.Context, cr *cmapi.CertificateRequest, v proof.Verdict) (written bool, err error) {
	kind := cmapi.CertificateRequestConditionApproved
	if v.Outcome == proof.Deny {
		kind = cmapi.CertificateRequestConditionDenied
	}
	written, err = a.add(ctx, cr, kind, v.Reason, v.Message)
	if written {
		a.tell(cr, v, strings.ToLower(string(kind)))
	}
	return written, err
}

// add adds a condition to the request, unless somebody has changed it.
func (a *Approver) add(ctx context.Context, cr *cmapi.CertificateRequest, kind cmapi.CertificateRequestConditionType, reason, message string) (written bool, err error) {
	now := metav1.Now()
	decided := cr.DeepCopy()
	decided.Status.Conditions = append(decided.Status.Conditions, cmapi.CertificateRequestCondition{
		Type: kind, Status: cmmeta.ConditionTrue, Reason: reason, Message: message, LastTransitionTime: &now,
	})
	err = a.Requests.Status().Patch(ctx, decided, client.MergeFromWithOptions(cr, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("write the decision on CertificateRequest %s/%s: %w", cr.Namespace, cr.Name, err)
	}
	return true, nil
}

// tell leaves the trail of a decision. The pod hears of a denial if it is the asker's own: nobody makes events for the pods of others.
func (a *Approver) tell(cr *cmapi.CertificateRequest, v proof.Verdict, outcome string) {
	a.decisions.WithLabelValues(outcome, v.Reason).Inc()
	a.Log.Info("request "+outcome, "request", cr.Namespace+"/"+cr.Name, "node", strings.Join(cr.Spec.Extra[nodeName], ","), "reason", v.Reason, "message", v.Message, "caller", cr.Spec.Username)
	if v.Outcome != proof.Deny {
		return
	}
	const action = "Approve"
	a.Events.Eventf(cr, nil, corev1.EventTypeWarning, v.Reason, action, "%s", v.Message)
	if v.Pod != nil {
		a.Events.Eventf(v.Pod, nil, corev1.EventTypeWarning, v.Reason, action, "%s", v.Message)
	}
}
