package cluster

import (
	"context"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// A Turn says who of the replicas handles requests first.
type Turn interface {
	// First reports whether this replica does. Where it is not known who does, all do.
	First() bool
}

// headStart is how much later than the first replica the others look at a request: by then it has its answer, and costs
// them nothing.
const headStart = time.Second

// Wait returns how long this replica leaves what has just happened to the one that handles requests first.
func Wait(turn Turn) time.Duration {
	if turn.First() {
		return 0
	}
	return headStart
}

// A Followed is what is left to replicas that are not first. They handle it one by one: where the first has much to do,
// the others do little of it twice. The zero Followed is ready for use.
type Followed struct{ mu sync.Mutex }

// Begin waits until this replica may handle a request. What it returns must be called at the end.
func (f *Followed) Begin(turn Turn) (end func()) {
	if turn.First() {
		return func() {}
	}
	f.mu.Lock()
	return f.mu.Unlock
}

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// Delayed returns a handler whose requests wait for as long as wait returns for the object of an event.
func Delayed(wait func(client.Object) time.Duration, to handler.EventHandler) handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) {
			to.Create(ctx, e, later{q, wait(e.Object)})
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			to.Update(ctx, e, later{q, wait(e.ObjectNew)})
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
			to.Delete(ctx, e, later{q, wait(e.Object)})
		},
	}
}

// A later is a queue to which requests come after a while.
type later struct {
	queue
	after time.Duration
}

// Add implements [workqueue.TypedInterface].
func (l later) Add(one reconcile.Request) { l.AddAfter(one, l.after) }
