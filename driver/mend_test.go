package driver_test

import (
	"context"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/signer"
)

// endsEarly demands that what is done comes before the volume's backoff ends, which takes a minute at least.
func (n *node) endsEarly(f store.Failure, what string, done func() bool) {
	n.t.Helper()
	until(n.t, what, done)
	if !time.Now().Before(f.RetryAt) {
		n.t.Errorf("%s: only at the end of the backoff", what)
	}
}

// mended denies, and says that the cause is mended when the channel is closed. tokens gets the token of that time.
func mended(when <-chan struct{}, tokens chan<- signer.Token) answer {
	return func(context.Context, signer.Request, signer.Signer) (signer.Issued, error) {
		refused := signer.Errorf(signer.Denied, "a right is missing")
		refused.Mended = func(ctx context.Context, token func() signer.Token) error {
			select {
			case <-when:
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case tokens <- token():
			case <-ctx.Done():
			}
			return ctx.Err()
		}
		return signer.Issued{}, refused
	}
}

// A pod that waits to start gets its certificate when the cause is mended, by the token of that time, and within five seconds.
func TestAMendedCauseEndsTheBackoff(t *testing.T) {
	n := newNode(t, asPod)
	when, used := make(chan struct{}), make(chan signer.Token, 1)
	n.signer.say(mended(when, used))
	v := withToken(tokens("", "first", time.Hour))
	n.fails(v, "request denied: a right is missing")
	again := withToken(tokens("", "second", time.Hour))
	n.fails(again, "request denied: a right is missing")
	f := *n.record(v).Failure
	close(when)
	if got := <-used; got != "second" {
		t.Errorf("asked with token %q", string(got))
	}
	n.endsEarly(f, "the certificate", func() bool { return exists(t, n.inState(v, "data/..data/tls.crt")) })
	n.publish(again)
	if asked := n.signer.asked(); len(asked) != 2 || asked[0].Attempt.ID == asked[1].Attempt.ID || asked[1].Token != "second" {
		t.Errorf("%d requests", len(asked))
	}
}

// Who says that a cause is mended may be wrong: a volume rests for four seconds at least, and no more than five.
func TestAMendedCauseDoesNotMakeTriesFast(t *testing.T) {
	n := newNode(t, nil)
	when, used := make(chan struct{}), make(chan signer.Token, 1)
	n.signer.from(mended(when, used))
	v := web()
	n.fails(v, "a right is missing")
	f := *n.record(v).Failure
	close(when)
	<-used
	until(t, "the backoff is shorter", func() bool { return n.record(v).Failure.RetryAt.Before(f.RetryAt) })
	if rest := n.record(v).Failure.RetryAt.Sub(f.At); n.record(v).Failure.Count == 1 && (rest < 4*time.Second || rest > 5*time.Second) {
		t.Errorf("it rests for %s", rest)
	}
	n.unpublish(v)
	n.empty()
}

// remembering is a signer that says what became of an attempt.
type remembering struct {
	*scripted
	refused func(signer.Attempt) error
}

func (r remembering) Refused(_ context.Context, attempt signer.Attempt) error {
	return r.refused(attempt)
}

// A restart does not end the wait for a cause to be mended.
func TestAMendedCauseAfterARestart(t *testing.T) {
	t.Parallel()
	when, used := make(chan struct{}), make(chan signer.Token, 1)
	close(when)
	denied := func() error {
		_, err := mended(when, used)(t.Context(), signer.Request{}, nil)
		return err
	}
	for name, row := range map[string]struct {
		refused func() error
		early   bool
	}{
		"it is mended":             {denied, true},
		"nothing says it any more": {func() error { return nil }, true},
		"it can't be known":        {func() error { return signer.Errorf(signer.Unavailable, "away") }, false},
		"it can't be mended":       {func() error { return signer.Errorf(signer.Denied, "no") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			asked := make(chan signer.Attempt, 10)
			n := newNode(t, func(c *driver.Config) {
				one, ok := c.Signer.(*scripted)
				if !ok {
					t.Fatalf("the signer is a %T", c.Signer)
				}
				c.Signer = remembering{one, func(a signer.Attempt) error {
					asked <- a
					return row.refused()
				}}
			})
			v := web()
			n.signer.say(refuse(signer.Denied, "no"))
			n.fails(v, "request denied: no")
			f := *n.record(v).Failure
			if len(asked) > 0 {
				t.Error("the signer was asked before the restart")
			}
			n.restart()
			if got, first := <-asked, n.signer.asked()[0].Attempt; got != first {
				t.Errorf("asked for %+v, not %+v", got, first)
			}
			if row.early {
				n.endsEarly(f, "the certificate", func() bool { return exists(t, n.inState(v, "data/..data/tls.crt")) })
			} else if now, forgot := n.record(v).Failure, n.signer.forgot(); !now.RetryAt.Equal(f.RetryAt) || len(forgot) > 0 {
				t.Errorf("the backoff ends at %s, not %s; forgot %v", now.RetryAt, f.RetryAt, forgot)
			}
			n.unpublish(v)
			n.empty()
		})
	}
}
