package object

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// An Event says that an object was added or changed, or that it was deleted.
type Event[T any] struct {
	Deleted bool
	Object  T // Its state; the last one, if it was deleted.
}

// Watch watches the object of a name from a version on. It ends with an error, or without one if the API server ends
// the watch. The connection is used until the caller leaves the loop.
func (c Client[T]) Watch(ctx context.Context, name, version string) iter.Seq2[Event[*T], error] {
	return func(yield func(Event[*T], error) bool) {
		stream, err := versioned(c.named(name).Param("watch", "true"), version).Stream(ctx)
		if err != nil {
			yield(Event[*T]{}, err)
			return
		}
		defer stream.Close() //nolint:errcheck // It was only read.
		decoder := json.NewDecoder(stream)
		for {
			e, err := next[T](decoder)
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// next reads an event (metav1.WatchEvent). The API server writes its type before its object, which is then parsed as it
// is read; in the other order it is read first.
func next[T any](from *json.Decoder) (e Event[*T], err error) {
	token := func() (t json.Token) {
		if err == nil {
			t, err = from.Token()
		}
		return t
	}
	var kind watch.EventType
	var early json.RawMessage
	token() // The opening brace.
	for err == nil && from.More() {
		switch key := token(); {
		case err != nil:
		case key == "type":
			err = from.Decode(&kind)
		case key == "object" && kind == "":
			err = from.Decode(&early)
		case key == "object":
			e, err = typed[T](kind, from.Decode)
		default:
			err = from.Decode(new(json.RawMessage))
		}
	}
	token() // The closing brace.
	switch {
	case err != nil:
		return e, err
	case early != nil:
		return typed[T](kind, func(into any) error { return json.Unmarshal(early, into) })
	case e.Object == nil:
		return e, fmt.Errorf("an event %q has no object", kind)
	}
	return e, nil
}

// typed returns the event of a kind. decode decodes its object.
func typed[T any](kind watch.EventType, decode func(into any) error) (e Event[*T], err error) {
	switch kind {
	case watch.Added, watch.Modified, watch.Deleted:
		e.Deleted, e.Object = kind == watch.Deleted, new(T)
		return e, decode(e.Object)
	case watch.Error:
		var status metav1.Status
		if err := decode(&status); err != nil {
			return e, err
		}
		return e, apierrors.FromObject(&status)
	}
	return e, fmt.Errorf("unknown event %q", kind)
}
