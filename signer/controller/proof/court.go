package proof

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// A Court judges claims by rules and profiles of now, and by what the API server says now.
type Court struct {
	Rules    Rules
	Profiles Profiles      // nil: there are none.
	Policies Policies      // nil: the rules' own policy counts.
	Live     client.Reader // Pods and nodes, from the API server itself: a cache may not know of a pod's end.
	Changes  *Changes      // Of policies and profiles; for controllers alone.
}

// Profiles are what the operator sets for volumes, as it is now.
type Profiles interface {
	// Get waits until the profiles were read once. When ctx ends before, the error says why.
	Get(ctx context.Context) (*spec.Profiles, error)
}

// Policies are those of the cluster, as they are now.
type Policies interface {
	// Get waits until the policies are known. Where they are not, the error says why.
	Get(ctx context.Context) (policy.Set, error)
}

// profilePatience is how long a judgement waits for the profiles, which come with the start.
const profilePatience = 10 * time.Second

// Everywhere returns how what judges is run: in every replica, whoever leads, and many claims at a time, which wait for the API server more than they work.
func Everywhere() controller.Options {
	leads := false
	return controller.Options{MaxConcurrentReconciles: 16, NeedLeaderElection: &leads, RateLimiter: retries()}
}

// retries returns when a claim is judged again that could not be. The queues' own ones come to wait for a quarter of an hour: for longer than a request is kept
// (kubernetes pkg/controller/certificates/cleaner/pcrcleaner.go), and for long after the API server is back.
func retries() workqueue.TypedRateLimiter[reconcile.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](10*time.Millisecond, 10*time.Second)
}

// Judge gathers the evidence and judges. What can't be read is an error: it is no reason to deny.
func (c Court) Judge(ctx context.Context, claim Claim) (Verdict, error) {
	rules, err := c.Now(ctx)
	if err != nil {
		return Verdict{}, err
	}
	var e Evidence
	if e.Pod, err = read(ctx, c.Live, client.ObjectKey{Namespace: claim.Namespace, Name: claim.Pod}, &corev1.Pod{}); err != nil {
		return Verdict{}, fmt.Errorf("read pod %s/%s: %w", claim.Namespace, claim.Pod, err)
	}
	verdict := rules.Judge(claim, e, time.Now())
	if verdict.Outcome != LookAtNode {
		return verdict, nil
	}
	node := e.Pod.Spec.NodeName
	if e.Node, err = read(ctx, c.Live, client.ObjectKey{Name: node}, &corev1.Node{}); err != nil {
		return Verdict{}, fmt.Errorf("read node %s: %w", node, err)
	}
	if e.Node == nil {
		e.Node = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}} // It is gone, and has no ranges.
	}
	return rules.Judge(claim, e, time.Now()), nil
}

// Now returns the rules of now.
func (c Court) Now(ctx context.Context) (rules Rules, err error) {
	rules = c.Rules
	if c.Policies != nil {
		if rules.Policy, err = c.Policies.Get(ctx); err != nil {
			return rules, err
		}
	}
	if c.Profiles != nil {
		ctx, cancel := context.WithTimeout(ctx, profilePatience)
		defer cancel()
		rules.Defaults.Live, err = c.Profiles.Get(ctx)
	}
	return rules, err
}

// read returns an object as it is now; nil if there is none.
func read[T client.Object](ctx context.Context, from client.Reader, key client.ObjectKey, into T) (found T, err error) {
	err = from.Get(ctx, key, into)
	if err != nil {
		return found, client.IgnoreNotFound(err)
	}
	return into, nil
}
