package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/mount"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// publish returns when a valid pair is in the volume and the volume on its target.
//
// While something of a volume exists its errors are not final, so that the kubelet tries again or unpublishes it;
// a final one comes only when nothing was made or everything is removed.
func (d *Driver) publish(ctx context.Context, h *held, asked volume.Asked) error {
	if h.known() && h.validAt(now()) && mount.Bound(h.dir.Data(), asked.Target) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, publishPatience)
	defer cancel()
	ctx, cancel = answerable(ctx)
	defer cancel()
	for {
		over, err := d.line(ctx, h, asked)
		if over == nil {
			return err
		}
		// The volume rests. The next try's end is waited for: the kubelet's own backoff would keep the pod waiting for up to 2 minutes after it
		// (kubernetes pkg/util/goroutinemap/exponentialbackoff).
		select {
		case <-over:
		case <-ctx.Done():
			return err
		case <-d.stopping:
			return err
		}
	}
}

// line is what a publish call goes through, one call of a volume at a time. Where the volume rests and a later try may go better, over is closed at the
// end of the next one.
func (d *Driver) line(ctx context.Context, h *held, asked volume.Asked) (over <-chan struct{}, err error) {
	if err := h.take(ctx); err != nil {
		return nil, err
	}
	defer d.release(h)
	if h.gone {
		return nil, errBusy
	}
	if err := d.open(ctx, h, asked); err != nil {
		return nil, err
	}
	if over, err := d.ensure(ctx, h); err != nil {
		return over, err
	}
	return nil, d.show(h, asked.Target)
}

// open makes the volume's tmpfs and record, or takes up those that are there.
func (d *Driver) open(ctx context.Context, h *held, asked volume.Asked) error {
	before := h.snapshot().Asked
	if before.Target != "" && before.Target != asked.Target {
		return fmt.Errorf("volume %s is published at %s: unpublish it there first", h.id, before.Target)
	}
	asked.Profile, asked.IPs = before.Profile, before.IPs
	defaults, err := d.defaultsOf(ctx, h)
	if err != nil {
		return err
	}
	v, err := volume.Parse(asked, defaults)
	if err != nil {
		return d.refuse(h, asked, err)
	}
	if err := d.tmpfs(h, v.SELinuxContext); err != nil {
		return err
	}
	if asked.Password != "" {
		if err := h.dir.WritePassword(asked.Password); err != nil {
			return err
		}
		asked.Password = ""
	}
	asked.Secrets = false // It has what was in them.
	h.mu.Lock()
	h.volume = v
	if !v.AsPod {
		h.token = token{} // It is not asked with.
	}
	h.mu.Unlock()
	d.follow(h)
	if h.known() {
		return nil
	}
	asked.Profile = v.Profile
	if err := h.update(func(r *files.Record) { r.Asked = asked }); err != nil {
		return err
	}
	d.schedule(h) // What lay there under a record that could not be read is renewed again.
	return nil
}

// refuse answers a volume that can't be understood. One that has a valid pair was understood before: it stays as it is.
func (d *Driver) refuse(h *held, asked volume.Asked, problems error) error {
	if h.validAt(now()) {
		d.Log.Warn("the attributes of a volume are no longer understood; it keeps its certificate", "volume", h.id, "error", problems)
		return nil
	}
	if err := d.discard(h, asked.Target); err != nil {
		return errors.Join(problems, err)
	}
	return badCall{problems}
}

// tmpfs mounts the volume's tmpfs unless it is there.
func (d *Driver) tmpfs(h *held, context string) error {
	switch err := os.Mkdir(string(h.dir), 0o700); {
	case errors.Is(err, fs.ErrExist):
		if mounted, err := mount.Is(string(h.dir)); err != nil || mounted {
			return err
		}
	case err != nil:
		return fmt.Errorf("make the volume's directory: %w", err)
	}
	noswap, err := mount.Tmpfs(string(h.dir), context)
	if err != nil {
		return err
	}
	if !noswap {
		d.metrics.swappable.Inc()
	}
	return nil
}

// ensure sees to a valid pair in the volume. A volume that backs off is not tried again before its time.
func (d *Driver) ensure(ctx context.Context, h *held) (over <-chan struct{}, err error) {
	t := now()
	if h.validAt(t) {
		return nil, nil
	}
	if without, err := d.withoutPair(ctx, h); without || err != nil {
		return nil, err
	}
	switch r := h.snapshot(); {
	case r.Failure == nil:
		// The pod's author soon reads what the pod waits for; the kubelet's next call goes on with the same attempt.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, firstPatience)
		defer cancel()
	case r.Failure.Kind != signer.NotYet.String() && r.Failure.RetryAt.After(t):
		if r.Attempt != "" { // It goes on.
			over = h.nextEnd()
		}
		return over, restingError{*r.Failure, t}
	}
	return nil, d.issue(ctx, h)
}

// restingError is the answer for a volume that backs off.
type restingError struct {
	files.Failure
	now time.Time
}

// Error is the last reason and the time of the next try.
func (e restingError) Error() string {
	return fmt.Sprintf("%s (%s; the next try is at %s, in %s)", e.Reason, times(e.Count),
		stamp(e.RetryAt), e.RetryAt.Sub(e.now).Round(time.Second))
}

func times(n int) string {
	if n == 1 {
		return "tried once"
	}
	return fmt.Sprintf("tried %d times", n)
}

// show makes the volume visible at the target.
func (d *Driver) show(h *held, target string) error {
	if mount.Bound(h.dir.Data(), target) {
		return nil
	}
	if err := os.Mkdir(target, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the target: %w", err)
	}
	if err := mount.Unmount(target); err != nil { // What a crash or another driver left.
		return err
	}
	return mount.Bind(h.dir.Data(), target)
}

// unpublish is the line backwards. It succeeds for a volume that is not there.
func (d *Driver) unpublish(ctx context.Context, id, target string) error {
	h := d.hold(id)
	h.interrupt()
	if err := h.take(ctx); err != nil {
		return err
	}
	defer d.release(h)
	return d.discard(h, target)
}

// discard removes the volume from target and state directory: the pod's view, then the secrets, then the mount.
func (d *Driver) discard(h *held, target string) error {
	d.queue.Remove(h.id)
	if err := mount.Unmount(target); err != nil {
		return err
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the target: %w", err)
	}
	leftovers := h.close()
	if err := h.erase(); err != nil {
		h.reopen()
		return err
	}
	d.leave(h)
	pod := h.volume.Pod
	d.drop(h)
	d.retire(&leftovers, leftovers.Attempt)
	d.forget(h, pod, leftovers.Finished)
	return nil
}

// erase removes what is there of the volume. What is closed is not written again.
func (h *held) erase() error {
	h.files.Lock()
	defer h.files.Unlock()
	return erase(h.dir)
}

// erase empties and unmounts the volume's tmpfs, if it is there, and removes its directory.
func erase(dir files.Dir) error {
	mounted, err := mount.Is(string(dir))
	if err != nil {
		return err
	}
	if mounted {
		if err := dir.Wipe(); err != nil {
			return err
		}
		if err := mount.Unmount(string(dir)); err != nil {
			return err
		}
	}
	// What was written after somebody else had taken the tmpfs away.
	if err := dir.Wipe(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Remove(string(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the volume's directory: %w", err)
	}
	return nil
}
