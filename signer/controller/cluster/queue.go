package cluster

import (
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Options returns how a controller that decides is run: in every replica, whoever leads, many requests at a time, which
// wait for the API server more than they work, and namespaces by turns.
func Options() controller.Options {
	leads := false
	return controller.Options{
		MaxConcurrentReconciles: 16, NeedLeaderElection: &leads, RateLimiter: retries(), NewQueue: newQueue,
	}
}

// retries returns when a request is decided on again that could not be. The queues' own ones come to wait for a quarter
// of an hour: for longer than a request is kept (kubernetes pkg/controller/certificates/cleaner/pcrcleaner.go), and for
// long after the API server is back.
func retries() workqueue.TypedRateLimiter[reconcile.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](10*time.Millisecond, 10*time.Second)
}

// newQueue returns client-go's queue with turns for namespaces.
func newQueue(
	name string, limiter workqueue.TypedRateLimiter[reconcile.Request],
) workqueue.TypedRateLimitingInterface[reconcile.Request] {
	queue := workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[reconcile.Request]{
		Name: name, Queue: &turns{waiting: map[string][]reconcile.Request{}},
	})
	return workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[reconcile.Request]{
		Name: name,
		DelayingQueue: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[reconcile.Request]{
			Name: name, Queue: queue,
		}),
	})
}

// turns is the order of a queue: each namespace that has requests has one of them handled by turns, so that a pod with
// many holds up its own namespace alone. The queue guards it.
type turns struct {
	order   []string // The namespaces with requests; the first is the next.
	waiting map[string][]reconcile.Request
	n       int
}

// Touch implements [workqueue.Queue].
func (t *turns) Touch(reconcile.Request) {}

// Push implements [workqueue.Queue].
func (t *turns) Push(one reconcile.Request) {
	if len(t.waiting[one.Namespace]) == 0 {
		t.order = append(t.order, one.Namespace)
	}
	t.waiting[one.Namespace] = append(t.waiting[one.Namespace], one)
	t.n++
}

// Len implements [workqueue.Queue].
func (t *turns) Len() int { return t.n }

// Pop implements [workqueue.Queue].
func (t *turns) Pop() reconcile.Request {
	namespace := t.order[0]
	t.order = t.order[1:]
	one, rest := t.waiting[namespace][0], t.waiting[namespace][1:]
	if t.waiting[namespace] = rest; len(rest) > 0 {
		t.order = append(t.order, namespace)
	} else {
		delete(t.waiting, namespace)
	}
	t.n--
	return one
}
