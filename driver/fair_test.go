package driver_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// volumeOf is a volume of a pod of its own.
func volumeOf(namespace, pod, issuer string, i int) kubelet.Volume {
	v := web("csi.mayfly.dev/issuer-name=" + issuer)
	v.Pod = kubelet.Pod{Namespace: namespace, Name: fmt.Sprint(pod, "-", i), UID: fmt.Sprintf("3b2f6a5e-0003-4c5e-9d3e-%012d", i), ServiceAccount: "web"}
	return v
}

// A hundred volumes whose issuer has fallen silent do not keep others from their renewals, in another namespace or in
// the same one.
func TestASilentIssuerHoldsUpNobody(t *testing.T) {
	n := newNode(t, func(c *driver.Config) { c.RenewalsPerSecond = 0 }) // The default.
	var silent []kubelet.Volume
	for i := range 100 {
		silent = append(silent, volumeOf("evil", "silent", "silent", i))
		n.publish(silent[i])
	}
	healthy := []kubelet.Volume{volumeOf("shop", "web", "ca", 200), volumeOf("evil", "web", "ca", 201)}
	for _, v := range healthy {
		n.publish(v)
	}
	n.signer.from(func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		if req.Issuer.Name == "silent" {
			return hang(ctx, req, ca)
		}
		return ca.Sign(ctx, req)
	})
	for _, v := range silent {
		n.renew(v)
	}
	published := len(silent) + len(healthy)
	until(t, "many wait for the issuer that is silent", func() bool { return len(n.signer.asked()) >= published+16 })
	for range 3 {
		for _, v := range healthy {
			before := pair(t, n.Target(v))
			n.renew(v)
			begin := time.Now()
			until(t, "the renewal", func() bool { return !pair(t, n.Target(v)).Equal(before) })
			if took := time.Since(begin); took > 30*time.Second { // A silent issuer is waited for for a minute.
				t.Errorf("the renewal in %s took %s", v.Namespace, took)
			}
		}
	}
}

// The first renewal that is not answered waits for a minute; later ones look briefly, until there is an answer.
func TestAWaitThatBroughtNothingIsBrief(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	n.publish(v)
	waits := make(chan time.Duration, 3)
	measure := func(then answer) answer {
		return func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
			deadline, _ := ctx.Deadline()
			waits <- time.Until(deadline)
			return then(ctx, req, ca)
		}
	}
	sign := func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		return ca.Sign(ctx, req)
	}
	n.signer.say(measure(refuse(signer.NotYet, "wait")), measure(sign), measure(sign))
	n.renew(v)
	first, second := <-waits, <-waits
	until(t, "the renewal has ended", func() bool { return n.record(v).Failure == nil && n.record(v).Attempt == "" })
	n.renew(v)
	third := <-waits
	if first < 15*time.Second || second > 3*time.Second || third < 15*time.Second {
		t.Errorf("the tries could wait for %s, %s and %s", first, second, third)
	}
}

// A clock that was ahead by ten hours when an attempt failed, or when the pair was received, does not make the volume rest.
func TestAClockThatWasSetBack(t *testing.T) {
	n := newNode(t, nil)
	failed, valid := web(), volumeOf("shop", "web", "ca", 1)
	target := n.publish(valid)
	before := pair(t, target)
	n.signer.from(refuse(signer.Failed, "the certificate expired"))
	n.fails(failed, "expired")
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	for _, v := range []kubelet.Volume{failed, valid} {
		r := n.record(v)
		if r.Failure != nil {
			r.Failure.At, r.Failure.RetryAt = r.Failure.At.Add(10*time.Hour), r.Failure.RetryAt.Add(10*time.Hour)
		}
		if !r.IssuedAt.IsZero() {
			r.IssuedAt, r.RenewAt = r.IssuedAt.Add(10*time.Hour), r.RenewAt.Add(10*time.Hour)
		}
		if err := store.WriteRecord(files.Dir(n.inState(v, "")), r); err != nil {
			t.Fatal(err)
		}
	}
	n.signer.from(nil)
	n.start()
	pair(t, n.publish(failed))
	n.pods.annotated(t, valid.Pod, time.Now(), nil) // It is older than the wish, whatever the record says.
	until(t, "the renewal", func() bool { return !pair(t, target).Equal(before) })
}

// What renew-before says beyond the first third of the certificate's life is cut, and the pod is told once.
func TestARenewBeforeThatIsCut(t *testing.T) {
	t.Parallel()
	for _, before := range []string{"14m50s", "98%"} {
		t.Run(before, func(t *testing.T) { isCut(t, before) })
	}
}

func isCut(t *testing.T, renewBefore string) {
	events := make(chan string, 10)
	n := newNode(t, func(c *driver.Config) { c.Events = eventFunc(func(message string) { events <- message }) })
	v := web("csi.mayfly.dev/renew-before=" + renewBefore)
	target := n.publish(v)
	before := pair(t, target)
	want := "RenewBeforeCut: volume tls: renew-before is " + renewBefore +
		": the certificate would be renewed in the first third of its life"
	if message := <-events; !strings.Contains(message, want) {
		t.Errorf("event %q", message)
	}
	if r := n.record(v); r.RenewAt.Sub(r.IssuedAt) < before.NotAfter.Sub(r.IssuedAt)/3 {
		t.Errorf("received at %s, renewed at %s, ends at %s", r.IssuedAt, r.RenewAt, before.NotAfter)
	}
	n.renew(v)
	until(t, "the renewal", func() bool { return !pair(t, target).Equal(before) })
	until(t, "the record", func() bool { return n.record(v).Attempt == "" })
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	for len(events) > 0 { // One may be that of the wish.
		if message := <-events; strings.Contains(message, "RenewBeforeCut") {
			t.Errorf("told again: %s", message)
		}
	}
}
