package driver

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/trust"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// Trust knows the sources of CA certificates beside the issuers.
type Trust interface {
	// Follow watches the source until stop is called, and calls changed after each change of what Answer says.
	Follow(source volume.Source, changed func()) (stop func())
	// Answer is what a source that is followed has.
	Answer(source volume.Source) trust.Answer
}

const (
	// concurrentPushes is how many volumes get other CA certificates at once: that is work for the processor, and for no longer than a moment.
	concurrentPushes = 8
	// pushAgain is after how long files are written again that could not be written.
	pushAgain = time.Minute
	// passingTrouble is for how long a source is in trouble before its pods are told.
	passingTrouble = 10 * time.Second
	// warningsPerSecond is how many pods of a node are told each second that a source is in trouble: it may be that of all pods of the cluster.
	warningsPerSecond = 5
)

// A sideline is work on volumes beside their certificates, with a queue of its own: neither holds up the other.
type sideline struct {
	clock *renew.WallClock
	*renew.Queue
}

func newSideline(perSecond float64, workers int, do func(context.Context, string)) (*sideline, error) {
	clock, err := renew.NewWallClock()
	if err != nil {
		return nil, err
	}
	return &sideline{clock, renew.NewQueue(clock, perSecond, workers, do)}, nil
}

// beside makes the sidelines.
func (d *Driver) beside() (err error) {
	if d.pushes, err = newSideline(math.MaxFloat64, concurrentPushes, d.push); err != nil {
		return err
	}
	if d.warnings, err = newSideline(warningsPerSecond, 1, d.tell); err != nil {
		return errors.Join(err, d.pushes.clock.Close())
	}
	return nil
}

// follow watches the sources of the volume, in place of those that it had. What they say is looked at in the background.
func (d *Driver) follow(h *held) {
	h.mu.Lock()
	sources, before := h.volume.Trust, h.unfollow
	if slices.Equal(h.followed, sources) {
		h.mu.Unlock()
		return
	}
	h.followed = sources
	begun := h.pair != nil
	h.mu.Unlock()
	var stops []func()
	for _, s := range sources {
		if s.Kind != volume.IssuerSource && d.Trust != nil {
			stops = append(stops, d.Trust.Follow(s, func() { d.look(h) }))
		}
	}
	if before != nil { // Later: a source that stays is watched on.
		before()
	}
	h.mu.Lock()
	h.unfollow = func() {
		for _, stop := range stops {
			stop()
		}
	}
	h.mu.Unlock()
	if begun { // Who begins looks for itself.
		d.look(h)
	}
}

// leave ends what follow began.
func (d *Driver) leave(h *held) {
	h.mu.Lock()
	stop := h.unfollow
	h.followed, h.unfollow = nil, nil
	h.mu.Unlock()
	if stop != nil {
		stop()
	}
	d.pushes.Remove(h.id)
}

// leaveAll ends it for all volumes.
func (d *Driver) leaveAll() {
	for _, h := range d.all() {
		d.leave(h)
	}
}

// look has the volume's sources looked at, and wakes who waits for them.
func (d *Driver) look(h *held) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.news != nil {
		close(h.news)
		h.news = nil
	}
	h.stale = true
	if !h.gone {
		d.pushes.Set(h.id, now(), time.Time{})
	}
}

// lookAt has them looked at then, unless that happens sooner.
func (d *Driver) lookAt(h *held, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.stale && !h.gone && !at.IsZero() {
		d.pushes.Set(h.id, at, time.Time{})
	}
}

// nextNews is closed when a source of the volume says something else.
func (h *held) nextNews() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.news == nil {
		h.news = make(chan struct{})
	}
	return h.news
}

// current is the volume as it is now; ok is false when it is gone. What changes from now on makes it stale again.
func (h *held) current() (v volume.Volume, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stale = false
	return h.volume, !h.gone && h.volume.ID != ""
}

// said is what a source has.
func (d *Driver) said(s volume.Source) trust.Answer {
	if d.Trust == nil {
		return trust.Answer{Err: errors.New("this driver knows no source but the issuer")}
	}
	return d.Trust.Answer(s)
}

// An untrusted pod is one that can't begin, for a source of its CA certificates has none. Time may mend that, as it may a request that is not signed yet.
type untrusted struct {
	source  volume.Source
	trouble string
}

// Error names the source and what is wrong with it.
func (e untrusted) Error() string { return fmt.Sprintf("trust source %s: %s", e.source, e.trouble) }

// Unwrap makes it an error that time may mend.
func (e untrusted) Unwrap() error { return signer.Errorf(signer.NotYet, "%s", e.Error()) }

// trusted waits until each source of the volume has said what it has: no pod begins with some of its CA certificates. One that has begun goes on with those
// that it has.
func (d *Driver) trusted(ctx context.Context, h *held) error {
	h.mu.Lock()
	begun := h.pair != nil
	h.mu.Unlock()
	for !begun {
		news := h.nextNews()
		source, trouble, lacking := d.lacking(h)
		switch {
		case !lacking:
			return nil
		case d.Trust == nil:
			return untrusted{source, trouble}
		}
		select {
		case <-news:
		case <-ctx.Done():
			return untrusted{source, trouble}
		case <-d.stopping:
			return untrusted{source, trouble}
		}
	}
	return nil
}

// lacking is the first source that the volume has nothing of, and why. What the others said counts even if they are gone before the certificate is there.
func (d *Driver) lacking(h *held) (s volume.Source, trouble string, ok bool) {
	h.files.Lock()
	defer h.files.Unlock()
	sources := h.volume.Trust // The volume's turn is held.
	m := d.recall(h, h.volume).Hear(sources, d.said, nil, now())
	h.memory = &m
	return m.Lacking(sources)
}

// inTrouble reports whether something is wrong with the source; that its API server does not answer is not.
func (d *Driver) inTrouble(s volume.Source) bool {
	err := d.said(s).Err
	return err != nil && !errors.Is(err, trust.ErrNoAnswer)
}

// troubled is how many of the sources that volumes use are in trouble.
func (d *Driver) troubled() float64 {
	troubled := map[volume.Source]bool{}
	for _, h := range d.all() {
		h.mu.Lock()
		followed := h.followed
		h.mu.Unlock()
		for _, s := range followed {
			if s.Kind != volume.IssuerSource && d.inTrouble(s) {
				troubled[s] = true
			}
		}
	}
	return float64(len(troubled))
}
