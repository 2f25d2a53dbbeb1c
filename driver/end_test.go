package driver_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/chain"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// A counted is a node whose metrics can be read.
type counted struct {
	*node
	registry *prometheus.Registry // Of the driver that runs.
}

// listening is a node whose Events come in the channel.
func listening(t *testing.T) (*counted, chan string) {
	t.Helper()
	events, n := make(chan string, 100), &counted{}
	n.node = newNode(t, func(c *driverConfig) {
		n.registry = prometheus.NewRegistry()
		c.Metrics, c.Events = n.registry, eventFunc(func(m string) { events <- m })
	})
	return n, events
}

// counts demands the values of metrics without labels.
func (n *counted) counts(want map[string]float64) {
	n.t.Helper()
	if got := values(n.t, n.registry, want); !maps.Equal(got, want) {
		n.t.Errorf("metrics are %v, want %v", got, want)
	}
}

// expired demands the Event of the certificate's end, and returns it.
func expired(t *testing.T, v kubelet.Volume, end time.Time, event string) {
	t.Helper()
	want := fmt.Sprintf("shop/%s CertificateExpired: volume tls: the pod's certificate ended at %s, before it was renewed", v.Pod.Name, chain.Stamp(end))
	if !strings.HasPrefix(event, want) {
		t.Errorf("got %q\nwant %q", event, want)
	}
}

// The pod hears of its certificate's end at that moment, even while the volume backs off, and once: not again after a
// restart. It hears of the next certificate, too.
func TestTheEndOfACertificate(t *testing.T) {
	n, events := listening(t)
	v := web("csi.mayfly.dev/duration=15s")
	n.signer.say(func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		return ca.Sign(ctx, req)
	})
	n.signer.from(refuse(signer.Denied, "no"))
	n.counts(map[string]float64{"mayfly_certificates_expired": 0, "mayfly_renewals_overdue": 0})
	end := pair(t, n.publish(v)).NotAfter
	if got := <-events; !strings.Contains(got, "CertificateNotRenewed: volume tls: request denied: no;") ||
		!strings.HasSuffix(got, "the pod keeps its certificate, which ends at "+chain.Stamp(end)) {
		t.Error(got)
	}
	expired(t, v, end, <-events)
	r := n.record(v)
	if now := time.Now(); now.Before(end) || now.After(r.Failure.RetryAt) {
		t.Errorf("the Event came at %s, the certificate ended at %s, and the next try was at %s", now, end, r.Failure.RetryAt)
	}
	n.counts(map[string]float64{"mayfly_certificates_expired": 1, "mayfly_renewals_overdue": 1})
	if !strings.Contains(n.log.String(), `msg="certificate expired"`) {
		t.Error("the log does not say so")
	}
	n.health(v, csi.VolumeHealthErrorType_INACCESSIBLE, "CertificateNotValid", " was valid from ")

	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n.rest(v)
	n.start()
	if got := <-events; !strings.Contains(got, "CertificateNotRenewed: volume tls: request denied: no;") ||
		!strings.HasSuffix(got, "the pod keeps its certificate, which ended at "+chain.Stamp(end)) {
		t.Error(got)
	}

	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n.signer.from(nil)
	n.rest(v)
	n.start()
	want := "shop/web-0 CertificateRenewed: volume tls: the certificate was renewed; the one before ended at " + chain.Stamp(end)
	if got := <-events; !strings.HasPrefix(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	n.counts(map[string]float64{"mayfly_certificates_expired": 0, "mayfly_renewals_overdue": 0})
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

// A volume that is not understood is counted at each call, and no other is. Each kind of failure has a count from the start.
func TestWhatIsCounted(t *testing.T) {
	n, _ := listening(t)
	families, err := n.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "mayfly_attempts_failed_total" && m.GetCounter().GetValue() == 0 {
				kinds = append(kinds, m.GetLabel()[0].GetValue())
			}
		}
	}
	want := []string{"not signed yet", "request denied", "request invalid", "signer unavailable", "signing failed"}
	if !slices.Equal(kinds, want) {
		t.Errorf("kinds at 0: %q", kinds)
	}
	n.publish(web())
	n.counts(map[string]float64{"mayfly_volumes_invalid_total": 0})
	wrong, writable := web("csi.mayfly.dev/dnsnames=x"), web()
	wrong.UID, writable.UID, writable.Writable = "3b2f6a5e-0001-4c5e-9d3e-000000000002", "3b2f6a5e-0001-4c5e-9d3e-000000000003", true
	for _, v := range []kubelet.Volume{wrong, wrong, writable} {
		if _, err := n.Publish(t.Context(), n.driver, v); status.Code(err) != codes.InvalidArgument {
			t.Error(err)
		}
	}
	n.counts(map[string]float64{"mayfly_volumes_invalid_total": 3})
}
