package driver_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/chain"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// listening is a node whose Events come in the channel.
func listening(t *testing.T) (*node, chan string) {
	t.Helper()
	events := make(chan string, 100)
	return newNode(t, func(c *driverConfig) { c.Events = eventFunc(func(m string) { events <- m }) }), events
}

// expired demands the Event of the certificate's end, and returns it.
func expired(t *testing.T, v kubelet.Volume, end time.Time, event string) {
	t.Helper()
	want := fmt.Sprintf("shop/%s CertificateExpired: the pod's certificate ended at %s, before it was renewed", v.Pod.Name, chain.Stamp(end))
	if !strings.HasPrefix(event, want) {
		t.Errorf("got %q\nwant %q", event, want)
	}
}

// The pod hears of its certificate's end at that moment, even while the volume backs off, and once: not again after a
// restart. It hears of the next certificate, too.
func TestTheEndOfACertificate(t *testing.T) {
	n, events := listening(t)
	v := web("csi.mayfly.dev/duration=8s")
	n.signer.say(nil)
	end := pair(t, n.publish(v)).NotAfter
	n.signer.from(refuse(signer.Denied, "no"))
	if got := <-events; !strings.Contains(got, "CertificateNotRenewed: request denied: no;") ||
		!strings.HasSuffix(got, "the pod keeps its certificate, which ends at "+chain.Stamp(end)) {
		t.Error(got)
	}
	expired(t, v, end, <-events)
	r := n.record(v)
	if now := time.Now(); now.Before(end) || now.After(r.Failure.RetryAt) {
		t.Errorf("the Event came at %s, the certificate ended at %s, and the next try was at %s", now, end, r.Failure.RetryAt)
	}
	if !strings.Contains(n.log.String(), `msg="certificate expired"`) {
		t.Error("the log does not say so")
	}
	n.health(v, csi.VolumeHealthErrorType_INACCESSIBLE, "CertificateNotValid", " was valid from ")

	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n.rest(v)
	n.start()
	if got := <-events; !strings.Contains(got, "CertificateNotRenewed: request denied: no;") ||
		!strings.HasSuffix(got, "the pod keeps its certificate, which ended at "+chain.Stamp(end)) {
		t.Error(got)
	}

	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n.signer.from(nil)
	n.rest(v)
	n.start()
	want := "shop/web-0 CertificateRenewed: the certificate was renewed; the one before ended at " + chain.Stamp(end)
	if got := <-events; !strings.HasPrefix(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// A certificate that ends while the driver is away is reported soon after it is back, before and beside its renewal.
func TestTheEndOfACertificateWhileTheDriverIsAway(t *testing.T) {
	n, events := listening(t)
	v := web("csi.mayfly.dev/duration=4s")
	n.signer.from(func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		if len(n.signer.asked()) > 1 {
			return hang(ctx, req, ca)
		}
		return ca.Sign(ctx, req)
	})
	end := pair(t, n.publish(v)).NotAfter
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	until(t, "the end", func() bool { return time.Now().After(end) })
	n.start()
	expired(t, v, end, <-events)
}
