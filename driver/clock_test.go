package driver_test

import (
	"context"
	"crypto/x509"
	"errors"
	"math/big"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/files"
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

// A root that ends while a pair is put in force goes, too: right after the files, the clock shows a later time.
func TestARootThatEndsDuringAnUpdate(t *testing.T) {
	n := newTrusting(t, nil)
	v := web("csi.mayfly.dev/duration=24h")
	clock, jump := &alarm.Clock{}, sync.Once{}
	wall := func() time.Time {
		if exists(t, filepath.Join(n.inState(v, "data"), files.Current)) {
			jump.Do(func() { clock.Jump(2 * time.Hour) })
		}
		return clock.Now()
	}
	n.clocks = renew.Clocks{Wall: wall, New: func() (renew.Clock, error) { return clock.New(), nil }}
	n.restart()
	ending := rootUntil(t, "ending", clock.Now().Add(time.Hour), 0)
	n.signer.from(func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		issued, err := ca.Sign(ctx, req)
		issued.CA = append(issued.CA, chain.Encode(ending)...)
		return issued, err
	})
	n.shows(n.publish(v), n.issuer())
}

// once fails to send the first Event, and hears of which pods the others are.
type once struct {
	failed chan struct{}
	heard  chan string
}

func (o once) Send(_ context.Context, pod signer.Pod, e event.Event) error {
	select {
	case <-o.failed:
		o.heard <- pod.Name + " " + e.Reason
		return nil
	default:
		close(o.failed)
		return errors.New("status 500")
	}
}

// An Event that the pod keeps its certificate is not sent later, once the certificate has gone with its tmpfs.
func TestAnEventOfAPairThatWentWithItsTmpfs(t *testing.T) {
	events := once{make(chan struct{}), make(chan string, 10)}
	n := newNode(t, withPods(newPods(), func(c *driver.Config) { c.Events = events }))
	clock := n.newClock()
	n.signer.from(by(clock))
	v, next := web("csi.mayfly.dev/duration=1h"), web("csi.mayfly.dev/duration=1h")
	next.Pod.Name, next.UID = "next", "3b2f6a5e-0001-4c5e-9d3e-000000000002"
	n.publish(v)
	n.publish(next)
	n.signer.from(refuse(signer.Denied, "no"))
	n.renew(v)
	<-events.failed
	unmount(t, n.inState(v, ""))
	answer := make(chan struct{})
	n.signer.say(func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		<-answer
		return by(clock)(ctx, req, ca)
	})
	n.fails(v, "request denied: no") // It backs off, in a new tmpfs.
	clock.Jump(10 * time.Minute)
	until(t, "another certificate is asked for", func() bool { return len(n.signer.asked()) == 4 })
	n.renew(next)
	if got := <-events.heard; got != "next CertificateNotRenewed" {
		t.Errorf("sent: %s", got)
	}
	close(answer)
	pair(t, n.publish(v))
}
