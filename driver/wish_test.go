package driver_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/pod"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// unwatched has nobody watch annotations.
func unwatched(c *driver.Config) { c.WatchPods = false }

// wish annotates the pods.
func (p *somePods) wish(at string) {
	p.change(func(s *volume.PodState) { s.Annotations = map[string]string{pod.RenewAt: at} })
}

// wishNow annotates the pods with a time that is after all that has failed.
func (p *somePods) wishNow() { p.wish(time.Now().Format(time.RFC3339Nano)) }

// read returns how often annotations were read.
func (p *somePods) read() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reads
}

// denied makes the volume's next renewal due, and waits until it is denied.
func (n *node) denied(v kubelet.Volume) store.Failure {
	n.t.Helper()
	n.interrupt(v, func(_ files.Dir, r *store.Record) error {
		r.RenewAt = time.Now()
		return nil
	})
	n.signer.from(refuse(signer.Denied, "no"))
	until(n.t, "the denial", func() bool { f := n.record(v).Failure; return f != nil && f.Kind == signer.Denied.String() })
	return *n.record(v).Failure
}

// Without a watch, the annotation of a pod with a volume that waits is read at the kubelet's next call.
func TestAWishThatNobodyWatches(t *testing.T) {
	p := newPods()
	n := newNode(t, withPods(p, unwatched))
	v := web()
	target := n.publish(v)
	first := pair(t, target)
	p.wish("2026-01-31T12:00:00Z") // It is older than the certificate.
	n.publish(v)
	if got := p.read(); got != 0 {
		t.Errorf("%d reads for a volume that is well", got)
	}
	f := n.denied(v)
	n.publish(v)
	if got := p.read(); got != 1 {
		t.Errorf("%d reads for a volume that waits", got)
	}
	asked := len(n.signer.asked())
	n.signer.from(nil)
	p.wishNow()
	n.publish(v) // Over a valid pair it waits for nothing.
	n.endsEarly(f, "the renewal", func() bool { return !pair(t, target).Equal(first) })
	if got := len(n.signer.asked()); got != asked+1 {
		t.Errorf("%d requests", got-asked)
	}
}

// What a pod wished goes with its last volume: one that is published for the same pod later knows nothing of it.
func TestAWishGoesWithThePodsVolumes(t *testing.T) {
	p := newPods()
	n := newNode(t, withPods(p, unwatched))
	gone, stays := web(), volumeOf("shop", "web", "ca", 1)
	n.publish(gone)
	target := n.publish(stays)
	renewed := pair(t, target)
	n.denied(gone)
	n.denied(stays)
	at := time.Now().Add(2 * time.Second)
	p.wish(at.Format(time.RFC3339Nano))
	n.publish(gone)
	p.wish(at.Add(time.Second).Format(time.RFC3339Nano))
	n.publish(stays)
	n.unpublish(gone)
	n.signer.from(nil)
	again := n.publish(gone)
	first := pair(t, again)
	until(t, "the later wish is met", func() bool { return !pair(t, target).Equal(renewed) })
	if !pair(t, again).Equal(first) {
		t.Error("the wish of before was met")
	}
}

// A call for a pod that waits to start waits for the try that its annotation asks for.
func TestAWishOfAPodThatWaitsToStart(t *testing.T) {
	p := newPods()
	n := newNode(t, withPods(p, unwatched))
	v := web()
	n.signer.say(refuse(signer.Denied, "no"))
	n.fails(v, "request denied: no")
	f := *n.record(v).Failure
	p.wishNow()
	pair(t, n.publish(v))
	n.endsEarly(f, "the certificate", func() bool { return true })
	if got := len(n.signer.asked()); got != 2 {
		t.Errorf("%d requests", got)
	}
}

// A wish that can't be read does no harm to a pair that is valid, and one that is no time is told.
func TestAWishThatCannotBeRead(t *testing.T) {
	p := newPods()
	told := make(chan string, 10)
	n := newNode(t, withPods(p, unwatched, func(c *driver.Config) { c.Events = eventFunc(func(message string) { told <- message }) }))
	v := web()
	target := n.publish(v)
	first := pair(t, target)
	n.denied(v)
	<-told // Of the denial.
	p.mu.Lock()
	p.away = errors.New("forbidden")
	p.mu.Unlock()
	n.publish(v)
	p.mu.Lock()
	p.away = nil
	p.mu.Unlock()
	p.wish("tomorrow")
	n.publish(v)
	if got := <-told; !strings.HasPrefix(got, "shop/web-0 RenewalNotUnderstood: ") {
		t.Error(got)
	}
	if !pair(t, target).Equal(first) {
		t.Error("renewed")
	}
}

// A wish that is watched ends a backoff, too.
func TestAWatchedWishEndsTheBackoff(t *testing.T) {
	p := newPods()
	n := newNode(t, withPods(p))
	v := web()
	target := n.publish(v)
	first := pair(t, target)
	f := n.denied(v)
	n.signer.from(nil)
	p.annotated(t, v.Pod, time.Now(), nil)
	n.endsEarly(f, "the renewal", func() bool { return !pair(t, target).Equal(first) })
	n.publish(v)
	if got := p.read(); got != 0 {
		t.Errorf("%d reads beside the watch", got)
	}
}
