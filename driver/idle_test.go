package driver_test

import (
	"context"
	"os"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// A delay is a signer for whose answers volumes wait in the background. By the name of its issuer a request is denied,
// not decided on, decided on late, or refused until something is mended.
type delay struct {
	waits atomic.Int32  // How many wait.
	over  chan struct{} // Is closed when the late issuer decides, and what was refused is mended.
}

// wait returns nil when over is closed, and an error when ctx ends.
func (d *delay) wait(ctx context.Context, over <-chan struct{}) error {
	d.waits.Add(1)
	defer d.waits.Add(-1)
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answer answers the first request of an attempt at once, so that the attempt fails and the volume waits.
func (d *delay) answer(n *node) answer {
	return func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		over := d.over
		switch req.Issuer.Name {
		case "denied":
			return refuse(signer.Denied, "no")(ctx, req, ca)
		case "refused":
			return d.refuseOrSign(ctx, req, ca)
		case "silent":
			over = nil
		}
		if n.firstAsk(req) || d.wait(ctx, over) != nil {
			return signer.Issued{}, signer.Errorf(signer.NotYet, "wait")
		}
		return ca.Sign(ctx, req)
	}
}

func (d *delay) refuseOrSign(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
	select {
	case <-d.over:
		return ca.Sign(ctx, req)
	default:
		refused := signer.Errorf(signer.Denied, "no right")
		refused.Mended = func(ctx context.Context, _ func() signer.Token) error { return d.wait(ctx, d.over) }
		return signer.Issued{}, refused
	}
}

// firstAsk reports whether the signer was not asked before in this attempt.
func (n *node) firstAsk(req signer.Request) bool {
	times := 0
	for _, asked := range n.signer.asked() {
		if asked.Attempt.ID == req.Attempt.ID {
			times++
		}
	}
	return times == 1
}

// openFiles returns how many descriptors this process has.
func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// Volumes that waited, in vain or not, leave nothing in a process that goes on: no goroutine, and no descriptor.
func TestVolumesThatWaitedLeaveNothing(t *testing.T) {
	const each = 5
	n := newNodeAlone(t, nil) // All that this process has is counted.
	n.publish(web())
	d := &delay{over: make(chan struct{})}
	n.signer.from(d.answer(n))
	files, goroutines := openFiles(t), goleak.IgnoreCurrent()
	var all, mended []kubelet.Volume
	for number, row := range []struct {
		issuer, reason string
		mended         bool
	}{
		{"denied", "no", false}, {"silent", "wait", false}, {"late", "wait", true}, {"refused", "no right", true},
	} {
		for i := range each {
			v := volumeOf("shop", row.issuer, row.issuer, 10*(number+1)+i)
			n.fails(v, row.reason)
			all = append(all, v)
			if row.mended {
				mended = append(mended, v)
			}
		}
	}
	until(t, "all that can be mended is waited for", func() bool { return d.waits.Load() >= 3*each })
	close(d.over)
	for _, v := range mended {
		until(t, "the certificate", func() bool {
			_, err := n.Publish(t.Context(), n.driver, v)
			return err == nil
		})
	}
	for _, v := range all {
		n.unpublish(v)
	}
	until(t, "the descriptors are closed", func() bool { return openFiles(t) <= files })
	var leaked error
	for range 30 { // Each looks for a second.
		if leaked = goleak.Find(goroutines); leaked == nil {
			return
		}
	}
	t.Error(leaked)
}
