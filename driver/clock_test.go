package driver_test

import (
	"context"
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/chain"
	"github.com/mayfly-csi/mayfly/test/alarm"
)

// newClock starts the driver anew, with a wall clock that the test sets.
func (n *node) newClock() *alarm.Clock {
	n.t.Helper()
	clock := &alarm.Clock{}
	n.clocks = renew.Clocks{Wall: clock.Now, New: func() (renew.Clock, error) { return clock.New(), nil }}
	n.restart()
	return clock
}

// by is an issuer that goes by the clock: its certificates begin a minute ago and last for an hour.
func by(clock *alarm.Clock) answer {
	return other(func(c *x509.Certificate) {
		now := clock.Now()
		c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(now.UnixNano()), now.Add(-time.Minute), now.Add(time.Hour)
	})
}

// A clock that is set makes a pair invalid: it is renewed at once, whether the driver runs then or not.
func TestAPairThatIsNotValidAfterTheClockIsSet(t *testing.T) {
	for name, row := range map[string]struct {
		jump      time.Duration
		meanwhile bool // The driver does not run.
		expired   float64
	}{
		"forward":                          {10 * time.Hour, false, 1},
		"back":                             {-10 * time.Hour, false, 0},
		"forward while the driver is away": {10 * time.Hour, true, 1},
		"back while the driver is away":    {-10 * time.Hour, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			n, _ := listening(t)
			clock := n.newClock()
			n.signer.from(by(clock))
			v := web()
			target := n.publish(v)
			before := pair(t, target)
			if row.meanwhile {
				if err := n.stop(); err != nil {
					t.Fatal(err)
				}
			}
			silent := make(chan struct{})
			n.signer.from(func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
				<-silent
				return by(clock)(ctx, req, ca)
			})
			clock.Jump(row.jump)
			if row.meanwhile {
				n.start()
			}
			n.health(v, csi.VolumeHealthErrorType_INACCESSIBLE, "CertificateNotValid", "valid from "+chain.Stamp(before.NotBefore))
			n.counts(map[string]float64{"mayfly_certificates_expired": row.expired, "mayfly_renewals_overdue": 1})
			close(silent)
			until(t, "the renewal", func() bool { return !pair(t, target).Equal(before) })
			if after := pair(t, target); after.NotBefore.After(clock.Now()) || after.NotAfter.Before(clock.Now()) {
				t.Errorf("valid from %s to %s at %s", after.NotBefore, after.NotAfter, clock.Now())
			}
			until(t, "the attempt is over", func() bool { return n.record(v).Attempt == "" })
			n.counts(map[string]float64{"mayfly_certificates_expired": 0, "mayfly_renewals_overdue": 0})
		})
	}
}

// An answer that was signed before the clock was set back is not waited for, for as long as the clock was ahead.
func TestAnAnswerFromBeforeTheClockIsSetBack(t *testing.T) {
	n := newNode(t, nil)
	clock := n.newClock()
	n.signer.say(func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		issued, err := by(clock)(ctx, req, ca)
		clock.Jump(-10 * time.Hour)
		return issued, err
	})
	v := web()
	n.fails(v, "signing failed: unusable certificate from Issuer ca: the certificate is not valid before")
	if r := n.record(v); r.Attempt != "" || r.Failure.RetryAt.Sub(clock.Now()) > 2*time.Minute {
		t.Errorf("attempt %q, next try at %s, at %s", r.Attempt, r.Failure.RetryAt, clock.Now())
	}
	n.signer.from(by(clock))
	clock.Jump(2 * time.Minute)
	n.publish(v)
}

// A root that has ended comes back when the clock is set back, also while no driver runs.
func TestARootThatHasNotEndedAfterAll(t *testing.T) {
	n := newTrusting(t, nil)
	clock := n.newClock()
	ending := rootUntil(t, "ending", clock.Now().Add(time.Hour), 0)
	n.signer.from(func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		issued, err := ca.Sign(ctx, req)
		issued.CA = append(issued.CA, chain.Encode(ending)...)
		return issued, err
	})
	target := n.publish(web("csi.mayfly.dev/duration=24h"))
	n.has(target, n.issuer(), ending)
	clock.Jump(2 * time.Hour)
	n.shows(target, n.issuer())
	clock.Jump(-2 * time.Hour)
	n.shows(target, n.issuer(), ending)
	clock.Jump(2 * time.Hour)
	n.shows(target, n.issuer())
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	clock.Jump(-2 * time.Hour)
	n.start()
	n.shows(target, n.issuer(), ending)
}
