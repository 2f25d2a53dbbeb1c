package decision

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apiwait "k8s.io/apimachinery/pkg/util/wait"

	"github.com/mayfly-csi/mayfly/signer"
)

// longestPause is the longest pause after a watch that the API server ended or refused.
const longestPause = 20 * time.Second

// newPause returns the pauses after watches that end one after another.
func newPause() *apiwait.Backoff {
	return &apiwait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 8, Cap: longestPause}
}

// Await returns when the request is decided or ctx ends.
func (k Kind[T]) Await(ctx context.Context, client Client[T], o T) (signer.Issued, error) {
	pause := newPause()
	var lastErr error
	for {
		if issued, err, decided := k.Decide(o); decided {
			return issued, k.mendable(client, o, err)
		}
		next, err := k.change(ctx, client, o, pause)
		o = next
		var final *signer.Error
		switch {
		case errors.As(err, &final) && final.Kind.Ends():
			return signer.Issued{}, final
		case ctx.Err() != nil:
			return signer.Issued{}, k.undecided(o, lastErr)
		}
		lastErr = err
	}
}

// Refused returns the error of a request that was decided against; nil if there is none of that name.
func (k Kind[T]) Refused(ctx context.Context, client Client[T], namespace, name string) error {
	found, err := client.Get(ctx, name, "")
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return Explain(err, "read "+k.Name+" "+namespace+"/"+name)
	}
	_, err, _ = k.Decide(found)
	return k.mendable(client, found, err)
}

// mendable lets the error of a denied request wait until another request like it may be approved.
func (k Kind[T]) mendable(client Client[T], denied T, err error) error {
	var refused *signer.Error
	if errors.As(err, &refused) && refused.Kind == signer.Denied {
		refused.Mended = func(ctx context.Context, _ func() signer.Token) error {
			return k.awaitApprovable(ctx, client, denied)
		}
	}
	return err
}

// awaitApprovable watches a denied request. It returns nil when the request says that another one like it would be
// approved, and when it is gone: then nothing says so any more.
func (k Kind[T]) awaitApprovable(ctx context.Context, client Client[T], denied T) error {
	says := k.Approvable
	k.Decide = func(o T) (signer.Issued, error, bool) { return signer.Issued{}, nil, says != nil && says(o) }
	_, err := k.Await(ctx, client, denied)
	if err != nil && !signer.KindOf(err).Ends() {
		return err
	}
	return nil
}

// change returns a later state of the request: from a watch, and when that has ended from a read after a pause. With an
// error it returns the last known state.
func (k Kind[T]) change(ctx context.Context, client Client[T], o T, pause *apiwait.Backoff) (T, error) {
	begun := time.Now()
	o, err := k.observe(ctx, client, o)
	if _, _, decided := k.Decide(o); decided || ctx.Err() != nil || errors.As(err, new(*signer.Error)) {
		return o, err
	}
	// The watch ended: closed by the API server, too old (410) or refused. Read what it missed.
	if time.Since(begun) > longestPause {
		*pause = *newPause()
	}
	if err := sleep(ctx, pause.Step()); err != nil {
		return o, err
	}
	return k.read(ctx, client, o)
}

// observe watches one object, from the known version, until it is decided or the watch ends, and returns its last
// state.
func (k Kind[T]) observe(ctx context.Context, client Client[T], o T) (T, error) {
	for event, err := range client.Watch(ctx, o.GetName(), o.GetResourceVersion()) {
		if err != nil {
			return o, fmt.Errorf("watch: %w", err)
		}
		if o, err = k.apply(event, o); err != nil {
			return o, err
		}
		if _, _, decided := k.Decide(o); decided {
			break
		}
	}
	return o, nil
}

// read reads the object from the API server's cache. A cache may lag behind: after its "not found" it reads from etcd.
func (k Kind[T]) read(ctx context.Context, client Client[T], o T) (T, error) {
	next, err := client.Get(ctx, o.GetName(), "0")
	if apierrors.IsNotFound(err) {
		next, err = client.Get(ctx, o.GetName(), "")
	}
	switch {
	case apierrors.IsNotFound(err):
		return o, k.deleted(o)
	case err != nil:
		return o, err
	}
	return next, k.same(next, o)
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
