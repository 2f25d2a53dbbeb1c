package cluster

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// Changes tells controllers when what requests are decided by has changed: policies or profiles. The zero Changes is
// ready for use.
type Changes struct {
	mu sync.Mutex
	to []chan event.GenericEvent
}

// Notify tells of a change. It does not wait: a listener that has not handled the last one yet looks at all that has
// changed.
func (c *Changes) Notify() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, to := range c.to {
		select {
		case to <- event.GenericEvent{}:
		default:
		}
	}
}

// listen returns a channel that gets an event after each change.
func (c *Changes) listen() <-chan event.GenericEvent {
	c.mu.Lock()
	defer c.mu.Unlock()
	to := make(chan event.GenericEvent, 1)
	c.to = append(c.to, to)
	return to
}

// A Review is of the requests of a kind that were denied or wait, and may be approved some day. A controller looks at
// them when what they were decided by has changed.
type Review struct {
	List client.ObjectList
	Is   func(client.Object) bool // Reports whether the request is one of them.
}

// Watch makes a controller look at them after changes.
func (r Review) Watch(from client.Reader, b *builder.Builder, changes *Changes) {
	b.WatchesRawSource(r.Source(from, changes))
}

// Source returns what has a controller look at them after changes.
//
// The cache has no index of them: one would make its informer before the manager starts, which then neither starts nor
// stops where requests may not be listed (sigs.k8s.io/controller-runtime v0.25.2 pkg/manager/runnable_group.go, Start).
func (r Review) Source(from client.Reader, changes *Changes) source.Source {
	all := func(ctx context.Context, _ client.Object) []reconcile.Request {
		all, err := r.All(ctx, from)
		if err != nil {
			log.FromContext(ctx).Error(err, "denied requests are not looked at again")
		}
		return all
	}
	return source.Channel(changes.listen(), handler.EnqueueRequestsFromMapFunc(all))
}

// All returns those in the cache.
func (r Review) All(ctx context.Context, from client.Reader) (all []reconcile.Request, err error) {
	list, ok := r.List.DeepCopyObject().(client.ObjectList)
	if !ok {
		return nil, fmt.Errorf("%T is no list", r.List)
	}
	if err := from.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list denied requests: %w", err)
	}
	err = meta.EachListItem(list, func(one runtime.Object) error {
		if o, ok := one.(client.Object); ok && r.Is(o) {
			all = append(all, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(o)})
		}
		return nil
	})
	return all, err
}

// AtStart selects those that a cache has when it is filled, for a controller may start with other flags. A request that
// is made later is not denied yet.
func (r Review) AtStart() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc:  func(e event.CreateEvent) bool { return r.Is(e.Object) },
		UpdateFunc:  func(event.UpdateEvent) bool { return false },
		DeleteFunc:  func(event.DeleteEvent) bool { return false },
		GenericFunc: func(event.GenericEvent) bool { return false },
	}
}
