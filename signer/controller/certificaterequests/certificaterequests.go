package certificaterequests

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/lru"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/audit"
	"github.com/mayfly-csi/mayfly/signer/controller/cluster"
	"github.com/mayfly-csi/mayfly/signer/decide"
)

// Config is what a controller is made of. All fields but Audit are required.
type Config struct {
	Callers
	Decider  cluster.Decider
	Requests client.Client // CertificateRequests may come from a cache, which [Callers.Trim] has trimmed.
	Events   cluster.Events
	Audit    *audit.Log // nil: none.
	Holder   Holder     // Of the right to record certificates.

	Metrics prometheus.Registerer
	Log     *slog.Logger
}

// A Holder may hold the right to record certificates, which one replica has.
type Holder interface {
	Holds() bool
	cluster.Turn
}

// A Controller decides on requests. Several may run at once: one decides first, and the others find the request
// changed. Make one with [New].
type Controller struct {
	Config
	decisions *prometheus.CounterVec
	accounts  *lru.Cache // The service accounts of the pods of approved requests, by the request's UID.
	followed  cluster.Followed
}

// maxAccounts is of how many requests that wait for their issuer the service account is known without asking.
const maxAccounts = 4096

// again is when a request is looked at once more that waits for what is not visible yet.
const again = time.Second

// New makes a controller. It panics if the registry has its metrics already.
func New(config Config) *Controller {
	return &Controller{
		Config: config, accounts: lru.New(maxAccounts),
		decisions: promauto.With(config.Metrics).NewCounterVec(prometheus.CounterOpts{
			Name: "mayfly_controller_decisions_total",
			Help: "Requests of node plugins that were approved or denied, by the reason.",
		}, []string{"outcome", "reason"}),
	}
}

// Add makes the manager run the controller, in every replica.
func (c *Controller) Add(to manager.Manager) error {
	concerns, reviews := predicate.NewPredicateFuncs(func(o client.Object) bool {
		cr, ok := o.(*cmapi.CertificateRequest)
		return ok && c.Concern(cr)
	}), c.reviews()
	certificates := newCertificates(c.Config, c.accounts)
	wait := func(client.Object) time.Duration { return cluster.Wait(c.Holder) }
	b := builder.ControllerManagedBy(to).Named("certificaterequests").
		Watches(&cmapi.CertificateRequest{}, cluster.Delayed(wait, &handler.EnqueueRequestForObject{}),
			builder.WithPredicates(predicate.Or(concerns, reviews.AtStart()))).
		Watches(&cmapi.CertificateRequest{}, certificates.handler()).
		WithOptions(cluster.Options(c.nodeOf))
	reviews.Watch(to.GetClient(), b, c.Decider.Changes)
	if err := errors.Join(b.Complete(c), to.Add(certificates)); err != nil {
		return fmt.Errorf("add the controller of CertificateRequests: %w", err)
	}
	return nil
}

// reviews returns the denied requests that may be approved some day.
func (c Callers) reviews() cluster.Review {
	return cluster.Review{List: &cmapi.CertificateRequestList{}, Is: func(o client.Object) bool {
		cr, ok := o.(*cmapi.CertificateRequest)
		return ok && c.denied(cr)
	}}
}

// Trim leaves of a request in a cache what a controller looks at: of those that do not concern it, that they don't, and
// of a node plugin's what the audit record says of its certificate.
func (c Callers) Trim(object any) (any, error) {
	cr, ok := object.(*cmapi.CertificateRequest)
	if !ok {
		return object, nil
	}
	cr.ManagedFields = nil
	if !c.Concern(cr) && !c.denied(cr) || cluster.Size(cr, cr.Spec.Request) > cluster.MaxCached {
		c.trimDecided(cr)
	}
	return cr, nil
}

// nodeOf returns the node that asks in a request, as the cache has it; empty: none does, or it is gone.
func (c *Controller) nodeOf(of reconcile.Request) string {
	cr := &cmapi.CertificateRequest{}
	asItIs := &client.GetOptions{UnsafeDisableDeepCopy: new(true)} // It is only read.
	if err := c.Requests.Get(context.Background(), of.NamespacedName, cr, asItIs); err != nil {
		return ""
	}
	return request(cr).Node
}

// Reconcile decides on one request.
func (c *Controller) Reconcile(ctx context.Context, of reconcile.Request) (reconcile.Result, error) {
	defer c.followed.Begin(c.Holder)()
	cr := &cmapi.CertificateRequest{}
	if err := c.Requests.Get(ctx, of.NamespacedName, cr); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if !c.denied(cr) && !c.Concern(cr) {
		return reconcile.Result{}, nil
	}
	if wait := c.Decider.Limits.Wait(recordOf(cr), cr.CreationTimestamp.Time); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	if len(cr.Spec.Request) == 0 { // It was trimmed.
		var list cmapi.CertificateRequestList
		if err := c.Decider.Whole(ctx, of.NamespacedName, &list); err != nil || len(list.Items) == 0 {
			return reconcile.Result{}, err
		}
		cr = &list.Items[0]
	}
	switch {
	case c.denied(cr):
		return c.review(ctx, cr)
	case !c.Concern(cr):
		return reconcile.Result{}, nil
	}
	d, err := c.Decider.Decide(ctx, request(cr))
	switch {
	case err != nil:
		return reconcile.Result{}, err
	case d.Verdict == decide.Wait:
		return reconcile.Result{RequeueAfter: again}, nil
	}
	written, err := c.conclude(ctx, cr, d)
	if written && d.Verdict == decide.Deny && decide.MayEnd(d.Reason) { // A policy may have changed meanwhile.
		return reconcile.Result{RequeueAfter: again}, nil
	}
	return reconcile.Result{}, err
}

// review looks at a denied request again. If it would be approved now it says so, for its node plugin: it can't be
// approved any more, but another one can.
func (c *Controller) review(ctx context.Context, cr *cmapi.CertificateRequest) (reconcile.Result, error) {
	d, err := c.Decider.Decide(ctx, request(cr))
	if err != nil || d.Verdict != decide.Approve {
		return reconcile.Result{}, err
	}
	const message = "another request like this one would be approved now"
	written, err := c.add(ctx, cr, signer.Approvable, d.Reason, message)
	if err == nil && !written { // cert-manager writes conditions, too.
		return reconcile.Result{RequeueAfter: again}, nil
	}
	if written {
		c.Log.Info("denied request would be approved now", "request", cr.Namespace+"/"+cr.Name)
	}
	return reconcile.Result{}, err
}

// conclude writes the decision down, if the request is still the one that was decided on. A change of it brings it
// back.
func (c *Controller) conclude(
	ctx context.Context, cr *cmapi.CertificateRequest, d decide.Decision,
) (written bool, err error) {
	kind := cmapi.CertificateRequestConditionApproved
	if d.Verdict == decide.Deny {
		kind = cmapi.CertificateRequestConditionDenied
	}
	written, err = c.add(ctx, cr, kind, d.Reason, d.Message)
	if written {
		c.record(cr, d, strings.ToLower(string(kind)))
	}
	return written, err
}

// add adds a condition to the request, unless somebody has changed it.
func (c *Controller) add(
	ctx context.Context, cr *cmapi.CertificateRequest, kind cmapi.CertificateRequestConditionType,
	reason, message string,
) (written bool, err error) {
	now := metav1.Now()
	decided := cr.DeepCopy()
	decided.Status.Conditions = append(decided.Status.Conditions, cmapi.CertificateRequestCondition{
		Type: kind, Status: cmmeta.ConditionTrue, Reason: reason, Message: message, LastTransitionTime: &now,
	})
	err = c.Requests.Status().Patch(ctx, decided, client.MergeFromWithOptions(cr, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("write the decision on CertificateRequest %s/%s: %w", cr.Namespace, cr.Name, err)
	}
	return true, nil
}

// record counts and records a decision, and makes events of a denial. An approval makes none: that would be a write
// more for each certificate. The pod gets one if it is the asking node's own: no node makes events for the pods of
// others.
func (c *Controller) record(cr *cmapi.CertificateRequest, d decide.Decision, outcome string) {
	c.decisions.WithLabelValues(outcome, d.Reason).Inc()
	if d.Verdict == decide.Approve {
		c.accounts.Add(cr.UID, d.ServiceAccount)
	}
	c.Audit.Write(decisionOf(cr, d, outcome))
	if d.Verdict != decide.Deny {
		return
	}
	const action = "Approve"
	c.Events.Eventf(cr, nil, corev1.EventTypeWarning, d.Reason, action, "%s", d.Message)
	if d.Own {
		owner := cr.OwnerReferences[0]
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: cr.Namespace, Name: owner.Name, UID: owner.UID}}
		c.Events.Eventf(pod, nil, corev1.EventTypeWarning, d.Reason, action, "%s", d.Message)
	}
}
