// Package status writes the status of CertificatePolicies, for people: whether a policy is understood, how many service
// accounts it selects, and whether a pod can leave it. No decision goes by it.
package status

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
)

// A Writer writes the status of all policies when one of them has changed, and again from time to time: service
// accounts come and go. All fields are required.
type Writer struct {
	Policies Policies
	API      client.Client // CertificatePolicies may come from a cache.
	Live     client.Reader // Of service accounts, whose metadata it lists from the API server itself.
	Log      *slog.Logger
}

// Policies are those of the cluster, as they are now.
type Policies interface {
	// Get waits until the policies are known. Where they are not, the error says why.
	Get(ctx context.Context) (policy.Set, error)
}

const (
	recount = 10 * time.Minute // When service accounts are counted again.
	retry   = time.Second      // When what has changed meanwhile is written again.
)

// Add makes the manager run the writer, in every replica: they write the same.
func (w *Writer) Add(to manager.Manager) error {
	everywhere := false
	all := func(context.Context, client.Object) []reconcile.Request { return make([]reconcile.Request, 1) }
	err := builder.ControllerManagedBy(to).Named("policy-status").
		Watches(&v1alpha1.CertificatePolicy{}, handler.EnqueueRequestsFromMapFunc(all),
			builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WithOptions(controller.Options{NeedLeaderElection: &everywhere}).
		Complete(w)
	if err != nil {
		return fmt.Errorf("add the status of policies: %w", err)
	}
	return nil
}

// Reconcile writes what has changed of the status of all policies.
func (w *Writer) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	set, err := w.Policies.Get(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	var list v1alpha1.CertificatePolicyList
	if err := w.API.List(ctx, &list); err != nil {
		return reconcile.Result{}, fmt.Errorf("read the CertificatePolicies: %w", err)
	}
	if len(list.Items) == 0 {
		return reconcile.Result{}, nil
	}
	accounts, err := w.accounts(ctx)
	if err != nil {
		w.Log.Warn("it is not known what CertificatePolicies select", "error", err)
	}
	counted := counts{set.Count(accounts), err}
	for _, r := range set.Rules() {
		written, err := w.write(ctx, list.Items, r, func(s *v1alpha1.Status) { describe(s, set, r, counted) })
		if err != nil {
			return reconcile.Result{}, err
		}
		if !written {
			return reconcile.Result{RequeueAfter: retry}, nil
		}
	}
	if behind(set, list.Items) {
		return reconcile.Result{RequeueAfter: retry}, nil
	}
	return reconcile.Result{RequeueAfter: recount}, nil
}

// behind reports whether the set does not have all policies as they are: it learns of a change by itself, maybe later.
func behind(set policy.Set, policies []v1alpha1.CertificatePolicy) bool {
	known := map[string]int64{}
	for _, r := range set.Rules() {
		known[r.Name] = r.Generation
	}
	return slices.ContainsFunc(policies, func(p v1alpha1.CertificatePolicy) bool {
		generation, ok := known[p.Name]
		return !ok || generation < p.Generation
	})
}

// accounts returns the service accounts of the cluster, each as a pod of it.
func (w *Writer) accounts(ctx context.Context) (all []signer.Pod, err error) {
	const page = 500
	for next := ""; ; {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ServiceAccountList"))
		if err := w.Live.List(ctx, list, client.Limit(page), client.Continue(next)); err != nil {
			return nil, fmt.Errorf("list the service accounts: %w", err)
		}
		for _, account := range list.Items {
			all = append(all, signer.Pod{Namespace: account.Namespace, ServiceAccount: account.Name})
		}
		if next = list.Continue; next == "" {
			return all, nil
		}
	}
}

// write changes the status of the rule's policy, if it differs. It reports false if somebody else has changed the
// policy meanwhile.
func (w *Writer) write(
	ctx context.Context, policies []v1alpha1.CertificatePolicy, r policy.Rule, change func(*v1alpha1.Status),
) (written bool, err error) {
	for i := range policies {
		p := &policies[i]
		if p.Name != r.Name {
			continue
		}
		old := p.DeepCopy()
		if change(&p.Status); equality.Semantic.DeepEqual(old.Status, p.Status) {
			return true, nil
		}
		err := w.API.Status().Patch(ctx, p, client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{}))
		if apierrors.IsConflict(err) {
			return false, nil
		}
		if client.IgnoreNotFound(err) != nil { // It is deleted, or the CRD is that of an earlier version.
			return false, fmt.Errorf("write the status of CertificatePolicy %s: %w", r.Name, err)
		}
	}
	return true, nil
}
