package certmanager

import (
	"context"
	"errors"
	"fmt"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	apiwait "k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/mayfly-csi/mayfly/signer"
)

// patience is for how long a request is watched. A signer that takes longer takes minutes (ACME), and a read
// from the API server's cache now and then is cheaper than a connection that stands open.
const patience = time.Minute

// wait returns when the request is decided or ctx ends.
func wait(ctx context.Context, client requests, cr *cmapi.CertificateRequest) (signer.Issued, error) {
	pause := apiwait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 8, Cap: 20 * time.Second}
	var trouble error
	for {
		if issued, err, decided := decide(cr); decided {
			return issued, err
		}
		next, err := change(ctx, client, cr, &pause)
		cr = next
		var final *signer.Error
		switch {
		case errors.As(err, &final) && final.Kind.Ends():
			return signer.Issued{}, final
		case ctx.Err() != nil:
			return signer.Issued{}, undecided(cr, trouble)
		}
		trouble = err
	}
}

// undecided is the error of a wait that ended before the request was decided.
func undecided(cr *cmapi.CertificateRequest, trouble error) *signer.Error {
	if trouble != nil {
		return signer.Errorf(signer.Unavailable, "read CertificateRequest %s: %w", title(cr), plain(trouble))
	}
	return signer.Errorf(signer.NotYet, "CertificateRequest %s: %s", title(cr), state(cr))
}

// change is the request as it is later, with an error also as it was last seen: decided, from a watch while it is young, or else as a
// read finds it after a pause.
func change(ctx context.Context, client requests, cr *cmapi.CertificateRequest, pause *apiwait.Backoff) (*cmapi.CertificateRequest, error) {
	if left := patience - age(cr, time.Now()); left > 0 {
		var err error
		cr, err = observe(ctx, client, cr, left)
		if _, _, decided := decide(cr); decided || ctx.Err() != nil || errors.As(err, new(*signer.Error)) {
			return cr, err
		}
		// The watch is over: closed by the API server, too old (410) or refused. A read tells what was missed.
	}
	if err := sleep(ctx, pause.Step()); err != nil {
		return cr, err
	}
	return read(ctx, client, cr)
}

// observe watches one object, from the version that is known, until it is decided or the watch ends, and is its last state.
func observe(ctx context.Context, client requests, cr *cmapi.CertificateRequest, atMost time.Duration) (*cmapi.CertificateRequest, error) {
	seconds := int64(atMost.Seconds()) + 1
	w, err := client.Watch(ctx, metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector(metav1.ObjectNameField, cr.Name).String(),
		ResourceVersion: cr.ResourceVersion,
		TimeoutSeconds:  &seconds,
	})
	if err != nil {
		return cr, fmt.Errorf("watch: %w", err)
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return cr, ctx.Err()
		case event, open := <-w.ResultChan():
			if !open {
				return cr, nil
			}
			if cr, err = understand(event, cr); err != nil {
				return cr, err
			}
			if _, _, decided := decide(cr); decided {
				return cr, nil
			}
		}
	}
}

// understand is the object after an event.
func understand(event watch.Event, before *cmapi.CertificateRequest) (*cmapi.CertificateRequest, error) {
	switch event.Type {
	case watch.Error:
		return before, fmt.Errorf("watch: %w", apierrors.FromObject(event.Object))
	case watch.Deleted:
		return before, deleted(before)
	}
	next, ok := event.Object.(*cmapi.CertificateRequest)
	if !ok {
		return before, nil
	}
	return next, same(next, before)
}

// read is the object as the API server's cache has it. A cache may lag behind, so its "not found" is asked again of the store.
func read(ctx context.Context, client requests, cr *cmapi.CertificateRequest) (*cmapi.CertificateRequest, error) {
	next, err := client.Get(ctx, cr.Name, metav1.GetOptions{ResourceVersion: "0"})
	if apierrors.IsNotFound(err) {
		next, err = client.Get(ctx, cr.Name, metav1.GetOptions{})
	}
	switch {
	case apierrors.IsNotFound(err):
		return cr, deleted(cr)
	case err != nil:
		return cr, err
	}
	return next, same(next, cr)
}

func deleted(cr *cmapi.CertificateRequest) error {
	return signer.Errorf(signer.Failed, "CertificateRequest %s was deleted before it was signed", title(cr))
}

// same demands that nobody put another request in the place of ours.
func same(next, before *cmapi.CertificateRequest) error {
	if next.UID != before.UID || !ours(next, before) {
		return signer.Errorf(signer.Failed, "CertificateRequest %s is not as it was created: it was replaced or its spec was changed", title(before))
	}
	return nil
}

// sleep waits for d or ctx.
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

// decide reads the request's conditions (cert-manager pkg/apis/certmanager/v1/types_certificaterequest.go).
func decide(cr *cmapi.CertificateRequest) (issued signer.Issued, err error, decided bool) {
	if c := condition(cr, cmapi.CertificateRequestConditionDenied); c != nil && c.Status == cmmeta.ConditionTrue {
		return issued, refused(signer.Denied, cr, c), true
	}
	if c := condition(cr, cmapi.CertificateRequestConditionInvalidRequest); c != nil && c.Status == cmmeta.ConditionTrue {
		return issued, refused(signer.Invalid, cr, c), true
	}
	ready := condition(cr, cmapi.CertificateRequestConditionReady)
	switch {
	case ready == nil:
	case ready.Status == cmmeta.ConditionTrue && len(cr.Status.Certificate) > 0:
		return signer.Issued{Chain: cr.Status.Certificate, CA: cr.Status.CA}, nil, true
	case ready.Reason == cmapi.CertificateRequestReasonFailed:
		return issued, refused(signer.Failed, cr, ready), true
	case ready.Reason == cmapi.CertificateRequestReasonDenied:
		return issued, refused(signer.Denied, cr, ready), true
	}
	return issued, nil, false
}

func refused(kind signer.Kind, cr *cmapi.CertificateRequest, c *cmapi.CertificateRequestCondition) error {
	return signer.Errorf(kind, "CertificateRequest %s: %s: %s", title(cr), c.Reason, c.Message)
}

// state is what an undecided request waits for, in words.
func state(cr *cmapi.CertificateRequest) string {
	if approved := condition(cr, cmapi.CertificateRequestConditionApproved); approved == nil || approved.Status != cmmeta.ConditionTrue {
		return "waiting for its approval"
	}
	issuer := fmt.Sprintf("%s %s", cr.Spec.IssuerRef.Kind, cr.Spec.IssuerRef.Name)
	if ready := condition(cr, cmapi.CertificateRequestConditionReady); ready != nil && ready.Message != "" {
		return fmt.Sprintf("approved, waiting for %s: %s", issuer, ready.Message)
	}
	return fmt.Sprintf("approved, waiting for %s", issuer)
}

func condition(cr *cmapi.CertificateRequest, t cmapi.CertificateRequestConditionType) *cmapi.CertificateRequestCondition {
	for i := range cr.Status.Conditions {
		if cr.Status.Conditions[i].Type == t {
			return &cr.Status.Conditions[i]
		}
	}
	return nil
}
