// Package decision submits a request to the API server, once for each attempt, and waits until another party has
// issued, denied or failed it.
//
// The cost for the API server is one object and one watch, to which it sends only that object's events
// (k8s.io/apiserver pkg/storage/cacher/cacher.go, watches by namespace and name), whatever the size of the cluster.
package decision

import (
	"context"
	"iter"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/object"
)

// An Object is a request in the API server.
type Object interface {
	GetName() string
	GetNamespace() string
	GetUID() string
	GetResourceVersion() string
}

// A Client creates, reads and watches requests in one namespace, as [object.Client] does. Get returns "not found" for
// one that was deleted.
type Client[T Object] interface {
	Create(ctx context.Context, wanted T) (T, error)
	Get(ctx context.Context, name, version string) (T, error)
	Watch(ctx context.Context, name, version string) iter.Seq2[object.Event[T], error]
}

// A Kind describes a kind of request. Its functions are pure.
type Kind[T Object] struct {
	Name   string                                                  // For messages.
	Asks   func(found, wanted T) bool                              // Reports whether both ask for the same.
	Decide func(T) (issued signer.Issued, err error, decided bool) // Returns the decision, if there is one.
	State  func(T) string                                          // Says what an undecided one waits for.

	// Approvable reports whether a denied one says that another one like it would be approved; nil: none says so.
	Approvable func(T) bool
}

// Submit creates the object, or finds the one that an earlier call created. action describes the creation in errors.
func (k Kind[T]) Submit(ctx context.Context, client Client[T], wanted T, action string) (T, error) {
	created, err := client.Create(ctx, wanted)
	switch {
	case err == nil:
		return created, nil
	case !apierrors.IsAlreadyExists(err):
		return k.refused(ctx, client, wanted, Explain(err, action))
	}
	found, err := client.Get(ctx, wanted.GetName(), "")
	switch {
	case err != nil:
		return wanted, Explain(err, "read "+k.Title(wanted))
	case !k.Asks(found, wanted):
		const format = "%s is not as it was created: its spec was changed"
		return wanted, signer.Errorf(signer.Failed, format, k.Title(wanted))
	}
	return found, nil
}

// refused returns the object that an earlier call created although this one was refused: the API server looks at rights
// and policies before it looks for an object of that name. If there is none, it returns the error.
func (k Kind[T]) refused(ctx context.Context, client Client[T], wanted T, refusal *signer.Error) (T, error) {
	if !refusal.Kind.Ends() {
		return wanted, refusal
	}
	found, err := client.Get(ctx, wanted.GetName(), "")
	if err != nil || !k.Asks(found, wanted) {
		return wanted, refusal
	}
	return found, nil
}

// Title returns the kind and name of the object.
func (k Kind[T]) Title(o T) string { return k.Name + " " + o.GetNamespace() + "/" + o.GetName() }

// Refusal returns the error of a decision against the request.
func (k Kind[T]) Refusal(kind signer.Kind, o T, reason, message string) *signer.Error {
	return signer.Errorf(kind, "%s: %s: %s", k.Title(o), reason, message)
}

// deleted returns the error of a request that was deleted.
func (k Kind[T]) deleted(o T) error {
	return signer.Errorf(signer.Failed, "%s was deleted before it was signed", k.Title(o))
}

// same returns an error if the request was replaced or changed.
func (k Kind[T]) same(next, before T) error {
	if next.GetUID() != before.GetUID() || !k.Asks(next, before) {
		const format = "%s is not as it was created: it was replaced or its spec was changed"
		return signer.Errorf(signer.Failed, format, k.Title(before))
	}
	return nil
}

// undecided returns the error of a wait that ended before the request was decided.
func (k Kind[T]) undecided(o T, lastErr error) *signer.Error {
	if lastErr != nil {
		return signer.Errorf(signer.Unavailable, "read %s: %w", k.Title(o), message.Stable(lastErr))
	}
	return signer.Errorf(signer.NotYet, "%s: %s", k.Title(o), k.State(o))
}

// apply returns the object after an event.
func (k Kind[T]) apply(event object.Event[T], before T) (T, error) {
	if event.Deleted {
		return before, k.deleted(before)
	}
	return event.Object, k.same(event.Object, before)
}
