package authority

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// Config is what a Keeper is made of. All fields are required.
type Config struct {
	Names
	Plan Plan

	API  client.Client // Reads may come from a cache: [Names.Cache].
	Live client.Reader // The own CA's Secret, from the API server itself: a cache may not know yet that there is one.

	Events  Recorder
	Metrics prometheus.Registerer
	Log     *slog.Logger
}

// A Recorder takes events, as a manager's does.
type Recorder interface {
	Eventf(regarding, related runtime.Object, eventtype, reason, action, note string, args ...any)
}

// A Keeper makes and rotates the controller's own CA, and publishes the roots of all. What somebody broke it leaves as
// it is, and says so. Two that run at once do no harm: who is second finds the Secret changed. Make one with [New].
type Keeper struct {
	Config
	ends     *prometheus.GaugeVec
	failures *prometheus.CounterVec
}

// again is when a Keeper looks at once more what another wrote in between.
const again = time.Second

// New makes a Keeper.
func New(config Config) (*Keeper, error) {
	if err := config.Plan.Check(); err != nil {
		return nil, err
	}
	k := &Keeper{
		Config: config,
		ends: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mayfly_controller_ca_expiry_timestamp_seconds",
			Help: "When the CA of a signer ends, in seconds since 1970. The leader alone tells.",
		}, []string{"signer"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mayfly_controller_ca_failures_total",
			Help: "How often the CA of a signer could not be used, kept or published.",
		}, []string{"signer"}),
	}
	if err := errors.Join(config.Metrics.Register(k.ends), config.Metrics.Register(k.failures)); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return k, nil
}

// Add makes the manager run the Keeper, in its leader alone.
func (k *Keeper) Add(to manager.Manager) error {
	// The own CA is looked at first without an event: there may be no Secret that one would be about.
	begin := make(chan event.GenericEvent, 1)
	own := &corev1.Secret{}
	own.Namespace, own.Name = k.Namespace, k.Own
	begin <- event.GenericEvent{Object: own}
	err := builder.ControllerManagedBy(to).Named("authority").
		For(&corev1.Secret{}, builder.WithPredicates(predicate.NewPredicateFuncs(func(o client.Object) bool {
			_, ok := k.Signer(o.GetName())
			return ok && o.GetNamespace() == k.Namespace
		}))).
		Watches(&certificatesv1.ClusterTrustBundle{}, handler.EnqueueRequestsFromMapFunc(k.ofBundle)).
		WatchesRawSource(source.Channel(begin, &handler.EnqueueRequestForObject{})).
		Complete(k)
	if err != nil {
		return fmt.Errorf("add the keeper of CAs: %w", err)
	}
	return nil
}

// ofBundle returns the Secret that a bundle is about.
func (k *Keeper) ofBundle(_ context.Context, o client.Object) []reconcile.Request {
	bundle, ok := o.(*certificatesv1.ClusterTrustBundle)
	if !ok || bundle.Name != bundleName(bundle.Spec.SignerName) {
		return nil
	}
	secret, ok := k.Secret(bundle.Spec.SignerName)
	if !ok {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: k.Namespace, Name: secret}}}
}

// Reconcile does for one CA what is due, and says when something is next.
func (k *Keeper) Reconcile(ctx context.Context, of reconcile.Request) (reconcile.Result, error) {
	signer, ok := k.Signer(of.Name)
	if !ok {
		return reconcile.Result{}, nil
	}
	k.failures.WithLabelValues(signer) // A rate needs the 0 before the first failure.
	keep := k.issuer
	if of.Name == k.Own {
		keep = k.own
	}
	now := time.Now()
	wakeAt, err := keep(ctx, of.Name, signer, now)
	switch {
	case apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err):
		return reconcile.Result{RequeueAfter: again}, nil
	case err != nil:
		return reconcile.Result{}, k.failed(of, signer, err)
	case wakeAt.IsZero():
		return reconcile.Result{}, nil
	}
	return reconcile.Result{RequeueAfter: max(wakeAt.Sub(now), time.Millisecond)}, nil
}

// failed tells of an error. What is broken is not tried again before it changes.
func (k *Keeper) failed(of reconcile.Request, signer string, err error) error {
	k.failures.WithLabelValues(signer).Inc()
	if broken := new(Broken); errors.As(err, &broken) {
		k.tell(of.Name, corev1.EventTypeWarning, "CABroken", "%v", err)
		return reconcile.TerminalError(err)
	}
	return err
}

// tell makes an event of a CA's Secret.
func (k *Keeper) tell(name, kind, reason, note string, args ...any) {
	secret := &corev1.Secret{}
	secret.APIVersion, secret.Kind, secret.Namespace, secret.Name = "v1", "Secret", k.Namespace, name
	k.Events.Eventf(secret, nil, kind, reason, "Keep", note, args...)
}

// issuer publishes the roots of a CA that cert-manager keeps. A bundle whose Secret is gone stays as it is:
// cert-manager may be about to make another.
func (k *Keeper) issuer(ctx context.Context, name, signer string, now time.Time) (wakeAt time.Time, err error) {
	secret := &corev1.Secret{}
	err = k.API.Get(ctx, client.ObjectKey{Namespace: k.Namespace, Name: name}, secret)
	switch {
	case apierrors.IsNotFound(err):
		k.ends.DeleteLabelValues(signer)
		return time.Time{}, nil
	case err != nil:
		return time.Time{}, fmt.Errorf("read Secret %s/%s: %w", k.Namespace, name, err)
	}
	c, err := parse(secret)
	if err != nil {
		return time.Time{}, k.broken(name, err)
	}
	k.ends.WithLabelValues(signer).Set(float64(c.Certificate.NotAfter.Unix()))
	if begin := c.Certificate.NotBefore; now.Before(begin) { // The clock of whoever made it is ahead.
		return begin, nil
	}
	if err := c.ValidAt(now); err != nil {
		return time.Time{}, k.broken(name, err)
	}
	wakeAt, err = k.publish(ctx, signer, c.Roots, now)
	return soonest(wakeAt, c.Certificate.NotAfter), err
}
