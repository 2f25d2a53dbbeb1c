package cluster

import (
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Options returns how a controller that decides is run: in every replica, whoever leads, many requests at a time, which
// wait for the API server more than they work. Nodes take turns, and of a node the namespaces of its pods do; node
// returns the one that asks in a request, and does not wait.
func Options(node func(reconcile.Request) string) controller.Options {
	leads := false
	return controller.Options{
		MaxConcurrentReconciles: 16, NeedLeaderElection: &leads, RateLimiter: retries(), NewQueue: newQueue(node),
	}
}

// retries returns when a request is decided on again that could not be. The queues' own ones come to wait for a quarter
// of an hour: for longer than a request is kept (kubernetes pkg/controller/certificates/cleaner/pcrcleaner.go), and for
// long after the API server is back.
func retries() workqueue.TypedRateLimiter[reconcile.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](10*time.Millisecond, 10*time.Second)
}

// A limiter is a queue's.
type limiter = workqueue.TypedRateLimiter[reconcile.Request]

// newQueue makes client-go's queue with turns.
func newQueue(
	node func(reconcile.Request) string,
) func(string, limiter) workqueue.TypedRateLimitingInterface[reconcile.Request] {
	return func(name string, limits limiter) workqueue.TypedRateLimitingInterface[reconcile.Request] {
		queue := workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[reconcile.Request]{
			Name: name, Queue: &turns{node: node, of: map[string]*namespaces{}},
		})
		delaying := workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[reconcile.Request]{
			Name: name, Queue: queue,
		})
		config := workqueue.TypedRateLimitingQueueConfig[reconcile.Request]{Name: name, DelayingQueue: delaying}
		return workqueue.NewTypedRateLimitingQueueWithConfig(limits, config)
	}
}

// turns is the order of a queue: each node that has requests has one of them handled by turns, so that many of one hold
// up no other. The queue guards it.
type turns struct {
	node  func(reconcile.Request) string
	order []string // The nodes with requests; the first is the next.
	of    map[string]*namespaces
	n     int
}

// Touch implements [workqueue.Queue].
func (t *turns) Touch(reconcile.Request) {}

// Push implements [workqueue.Queue].
func (t *turns) Push(one reconcile.Request) {
	node := t.node(one)
	of := t.of[node]
	if of == nil {
		of = &namespaces{waiting: map[string][]reconcile.Request{}}
		t.of[node] = of
		t.order = append(t.order, node)
	}
	of.push(one)
	t.n++
}

// Len implements [workqueue.Queue].
func (t *turns) Len() int { return t.n }

// Pop implements [workqueue.Queue].
func (t *turns) Pop() reconcile.Request {
	node := t.order[0]
	t.order = t.order[1:]
	one := t.of[node].pop()
	if len(t.of[node].order) > 0 {
		t.order = append(t.order, node)
	} else {
		delete(t.of, node)
	}
	t.n--
	return one
}

// namespaces is the order of a node's requests: each namespace has one of them handled by turns, so that a pod with
// many holds up its own namespace alone.
type namespaces struct {
	order   []string // The namespaces with requests; the first is the next.
	waiting map[string][]reconcile.Request
}

// push adds a request.
func (n *namespaces) push(one reconcile.Request) {
	if len(n.waiting[one.Namespace]) == 0 {
		n.order = append(n.order, one.Namespace)
	}
	n.waiting[one.Namespace] = append(n.waiting[one.Namespace], one)
}

// pop takes the next request, of which there must be one.
func (n *namespaces) pop() reconcile.Request {
	namespace := n.order[0]
	n.order = n.order[1:]
	one, rest := n.waiting[namespace][0], n.waiting[namespace][1:]
	if n.waiting[namespace] = rest; len(rest) > 0 {
		n.order = append(n.order, namespace)
	} else {
		delete(n.waiting, namespace)
	}
	return one
}
