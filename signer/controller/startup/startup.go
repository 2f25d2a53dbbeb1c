// Package startup takes the start-up taint off nodes on which the node plugin is registered. A node that joins with the
// taint gets no pods before volumes can be mounted there.
package startup

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Taint is the key of the start-up taint. Its effect and value do not count.
const Taint = "csi.mayfly.dev/not-ready"

const (
	// A node may get the taint from whoever manages it a while after it has joined, when no CSINode changes any more:
	// young nodes are looked at again.
	young  = 10 * time.Minute
	again  = time.Minute
	behind = time.Second // When a node that has changed meanwhile is read again.
)

// A Remover takes the taint off a node once its CSINode has all of the drivers, by which the kubelet says that they are
// registered (kubernetes pkg/volume/csi/nodeinfomanager). It watches CSINodes, which change when drivers come and go,
// and not nodes, which change all the time. All fields are required.
type Remover struct {
	Drivers []string
	API     client.Client // CSINodes may come from a cache.
	Live    client.Reader // Of nodes.
	Log     *slog.Logger
}

// Add makes the manager run the remover, in every replica: what one has done the other finds done.
func (r *Remover) Add(to manager.Manager) error {
	everywhere := false
	err := builder.ControllerManagedBy(to).Named("startup-taint").For(&storagev1.CSINode{}).
		WithOptions(controller.Options{NeedLeaderElection: &everywhere}).Complete(r)
	if err != nil {
		return fmt.Errorf("add the remover of the start-up taint: %w", err)
	}
	return nil
}

// Reconcile takes the taint off a node, if all drivers are registered there.
func (r *Remover) Reconcile(ctx context.Context, of reconcile.Request) (reconcile.Result, error) {
	var registered storagev1.CSINode
	if err := r.API.Get(ctx, of.NamespacedName, &registered); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if !r.complete(registered) {
		return reconcile.Result{}, nil
	}
	var node corev1.Node
	if err := r.Live.Get(ctx, of.NamespacedName, &node); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	removed, err := r.remove(ctx, &node)
	switch {
	case apierrors.IsConflict(err):
		return reconcile.Result{RequeueAfter: behind}, nil
	case client.IgnoreNotFound(err) != nil:
		return reconcile.Result{}, fmt.Errorf("take the taint %s off node %s: %w", Taint, node.Name, err)
	case removed:
		r.Log.Info("a node's start-up taint is removed: all drivers are registered there", "node", node.Name)
	}
	if time.Since(node.CreationTimestamp.Time) < young {
		return reconcile.Result{RequeueAfter: again}, nil
	}
	return reconcile.Result{}, nil
}

// complete reports whether all drivers are registered.
func (r *Remover) complete(on storagev1.CSINode) bool {
	for _, name := range r.Drivers {
		if !slices.ContainsFunc(on.Spec.Drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == name }) {
			return false
		}
	}
	return true
}

// remove takes the taint off a node, if it has it and is still as it was read.
func (r *Remover) remove(ctx context.Context, node *corev1.Node) (removed bool, err error) {
	old := node.DeepCopy()
	node.Spec.Taints = slices.DeleteFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == Taint })
	if len(node.Spec.Taints) == len(old.Spec.Taints) {
		return false, nil
	}
	patch := client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{})
	if err := r.API.Patch(ctx, node, patch); err != nil {
		return false, err
	}
	return true, nil
}
