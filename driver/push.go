package driver

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/driver/trust"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// deliver puts a new pair in force, with the CA certificates as they are now. The volume's turn must be held.
func (d *Driver) deliver(h *held, pair request.Pair) error {
	h.files.Lock()
	defer h.files.Unlock()
	v, t := h.volume, now()
	before := d.recall(h, v)
	after := before.Hear(v.Trust, d.said, nil, t).Issued(v.Trust, pair.CA, pair.Chain.Certificates(), t)
	pair.CA = after.Roots(v.Trust, t)
	after = after.Show(pair.CA)
	if err := install(h, v, h.snapshot().Attempt, pair, after); err != nil {
		return err
	}
	if !h.has() {
		before = trust.Memory{} // The pod was told nothing yet.
	}
	d.remember(h, v, before, after)
	return nil
}

// push is what the queue calls: the sources have changed, or an old root's time is over.
func (d *Driver) push(_ context.Context, id string) {
	h := d.find(id)
	if h == nil {
		return
	}
	if err := d.refresh(h); err != nil {
		d.Log.Error("CA certificates not changed", "volume", id, "error", err)
		d.lookAt(h, now().Add(pushAgain))
	}
}

// refresh brings the CA certificates of the pod to what they are now, beside the pair that it has.
func (d *Driver) refresh(h *held) error {
	h.files.Lock()
	defer h.files.Unlock()
	v, ok := h.current()
	if !ok {
		return nil
	}
	attempt, pair, err := h.inForce()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // The first pair brings them.
	}
	if err != nil {
		return err
	}
	t := now()
	before := d.recall(h, v)
	after := before.Hear(v.Trust, d.said, pair.Chain.Certificates(), t)
	roots := after.Roots(v.Trust, t)
	if (after.Complete(v.Trust) || before.Knows()) && !after.Shows(roots) {
		pair.CA, after = roots, after.Show(roots)
		if err := install(h, v, attempt, pair, after); err != nil {
			return err
		}
		d.metrics.pushed.Inc()
		d.Log.Info("CA certificates changed", "volume", h.id, "pod", v.Pod.Namespace+"/"+v.Pod.Name, "certificates", len(roots))
	} else if err := h.keep(after); err != nil {
		return err
	}
	d.remember(h, v, before, after)
	return nil
}

// keep writes down what is known of the CA certificates that the pod has.
func (h *held) keep(m trust.Memory) error {
	text, err := m.Encode()
	if err != nil {
		return err
	}
	return h.dir.WriteTrust(text)
}

// inForce reads the pair that the pod has, and which attempt brought it; the error is [fs.ErrNotExist] if it has none yet.
func (h *held) inForce() (attempt string, pair request.Pair, err error) {
	attempt, text, err := h.dir.InForce()
	if err != nil {
		return "", request.Pair{}, err
	}
	pair, err = request.DecodePair(text, now())
	return attempt, pair, err
}

// remember keeps in memory what is known of the CA certificates, plans the end of old roots, and has the pod told of
// sources that fell into trouble.
func (d *Driver) remember(h *held, v volume.Volume, before, after trust.Memory) {
	if h.memory = &after; len(after.Troubles()) > 0 {
		h.memory = nil // Its certificates may be no other volume's: what a source said last, all share.
	}
	d.lookAt(h, after.NextEnd(v.Trust, now()))
	d.complainOf(h, before, after)
}

// sooner is the first of two times, of which those that are zero don't count.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// complainOf queues what is new among the troubles for the pod, if it does not pass soon: a bundle that is replaced
// is gone for a moment, and an API server that starts refuses what it will grant.
func (d *Driver) complainOf(h *held, before, after trust.Memory) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, of := range []struct {
		reason        string
		before, after map[string]string
	}{{bundleKept, before.Troubles(), after.Troubles()}, {bundleUnchecked, before.Unparsed(), after.Unparsed()}} {
		maps.DeleteFunc(h.untold, func(key string, w request.Warning) bool {
			return w.Reason == of.reason && of.after[strings.TrimPrefix(key, of.reason+" ")] == ""
		})
		for words, message := range of.after {
			if message != of.before[words] && d.Events != nil && !h.gone {
				h.untell(of.reason+" "+words, request.Warning{Reason: of.reason, Message: message})
				d.warnings.Set(h.id, now().Add(passingTrouble), time.Time{})
			}
		}
	}
}

// The reasons of Events that tell of a source.
const (
	bundleKept      = "TrustBundleKept"
	bundleUnchecked = "TrustBundleUnchecked"
)

// untell notes what the pod is to be told. The lock must be held.
func (h *held) untell(words string, w request.Warning) {
	if h.untold == nil {
		h.untold = map[string]request.Warning{}
	}
	h.untold[words] = w
}

// tell is what the queue calls: there is something to tell a pod. What can't be told is told later.
func (d *Driver) tell(_ context.Context, id string) {
	h := d.find(id)
	if h == nil {
		return
	}
	h.mu.Lock()
	pod, untold := h.volume.Pod, h.untold
	h.untold = nil
	h.mu.Unlock()
	for _, words := range slices.Sorted(maps.Keys(untold)) {
		if d.warn(pod, untold[words].Reason, untold[words].Message) {
			continue
		}
		h.mu.Lock()
		if _, newer := h.untold[words]; !h.gone && !newer {
			h.untell(words, untold[words])
			d.warnings.Set(h.id, now().Add(pushAgain), time.Time{})
		}
		h.mu.Unlock()
	}
}

// recall is what is known of the volume's CA certificates. A volume of an older driver, or one whose record is lost, is known by what its pod has.
func (d *Driver) recall(h *held, v volume.Volume) trust.Memory {
	if h.memory != nil {
		return *h.memory
	}
	text, err := h.dir.Trust()
	if err == nil {
		var m trust.Memory
		if m, err = trust.Decode(text); err == nil {
			return m
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		d.Log.Error("what is known of a volume's CA certificates is taken from its files", "volume", h.id, "error", err)
	}
	return fromFiles(h, v)
}

// fromFiles is what the CA certificates say that the pod has, where a file of them is among its files.
func fromFiles(h *held, v volume.Volume) trust.Memory {
	_, pair, err := h.inForce()
	if err != nil {
		return trust.Memory{}
	}
	var text []byte
	for _, name := range slices.Sorted(maps.Keys(v.Files)) {
		if v.Files[name] == volume.CAPart {
			text, err = h.dir.Shown(name)
			break
		}
	}
	ca, parseErr := chain.Parse(text)
	if err != nil || parseErr != nil {
		return trust.Memory{}
	}
	return trust.Found(v.Trust, chain.Unite(ca), pair.Chain.Certificates(), now())
}
