// Package decision waits for what others decide on an object of the API server: it submits a request once for each attempt, and waits until someone
// has issued, denied or failed it.
//
// The API server pays for one object and one watch that it dispatches nothing but that object's events to
// (k8s.io/apiserver pkg/storage/cacher/cacher.go, watches by namespace and name), whatever the size of the cluster.
package decision

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/mayfly-csi/mayfly/signer"
)

// An Object is a request that lies with the API server.
type Object interface {
	runtime.Object
	metav1.Object
}

// A Client creates, reads and watches requests in one namespace. Get answers "not found" for one that is gone, and a resource version of "0" from the API
// server's cache.
type Client[T Object] interface {
	Create(context.Context, T, metav1.CreateOptions) (T, error)
	Get(ctx context.Context, name string, o metav1.GetOptions) (T, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// A Kind is what is known of a kind of request. Its functions are pure.
type Kind[T Object] struct {
	Name   string                                                  // As in messages.
	Asks   func(found, wanted T) bool                              // Does found ask for what wanted asks for?
	Decide func(T) (issued signer.Issued, err error, decided bool) // The decision, if there is one.
	State  func(T) string                                          // What an undecided one waits for, in words.
}

// Submit creates the object, or finds the one that an earlier call created. doing is what an error says of the first.
func (k Kind[T]) Submit(ctx context.Context, client Client[T], wanted T, doing string) (T, error) {
	created, err := client.Create(ctx, wanted, metav1.CreateOptions{})
	switch {
	case err == nil:
		return created, nil
	case !apierrors.IsAlreadyExists(err):
		return wanted, Explain(err, doing)
	}
	found, err := client.Get(ctx, wanted.GetName(), metav1.GetOptions{})
	switch {
	case err != nil:
		return wanted, Explain(err, "read "+k.Title(wanted))
	case !k.Asks(found, wanted):
		return wanted, signer.Errorf(signer.Failed, "%s is not as it was created: its spec was changed", k.Title(wanted))
	}
	return found, nil
}

// Title is the object in words.
func (k Kind[T]) Title(o T) string { return k.Name + " " + o.GetNamespace() + "/" + o.GetName() }

// Refused is the error of a decision against the request.
func (k Kind[T]) Refused(kind signer.Kind, o T, reason, message string) *signer.Error {
	return signer.Errorf(kind, "%s: %s: %s", k.Title(o), reason, message)
}

func (k Kind[T]) deleted(o T) error {
	return signer.Errorf(signer.Failed, "%s was deleted before it was signed", k.Title(o))
}

// same demands that nobody put another request in the place of ours.
func (k Kind[T]) same(next, before T) error {
	if next.GetUID() != before.GetUID() || !k.Asks(next, before) {
		return signer.Errorf(signer.Failed, "%s is not as it was created: it was replaced or its spec was changed", k.Title(before))
	}
	return nil
}

// undecided is the error of a wait that ended before the request was decided.
func (k Kind[T]) undecided(o T, trouble error) *signer.Error {
	if trouble != nil {
		return signer.Errorf(signer.Unavailable, "read %s: %w", k.Title(o), plain(trouble))
	}
	return signer.Errorf(signer.NotYet, "%s: %s", k.Title(o), k.State(o))
}

// understand is the object after an event.
func (k Kind[T]) understand(event watch.Event, before T) (T, error) {
	switch event.Type {
	case watch.Error:
		return before, fmt.Errorf("watch: %w", apierrors.FromObject(event.Object))
	case watch.Deleted:
		return before, k.deleted(before)
	}
	next, ok := event.Object.(T)
	if !ok {
		return before, nil
	}
	return next, k.same(next, before)
}

// age is for how long the API server has had the object.
func age(o metav1.Object, now time.Time) time.Duration {
	return now.Sub(o.GetCreationTimestamp().Time)
}
