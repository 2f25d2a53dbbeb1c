package driver

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/store"
)

const (
	// lookInterval is the longest time between two looks for volumes that the kubelet has forgotten.
	lookInterval = time.Hour
	// lookJitter is by how much that time may be shorter.
	lookJitter = 10 * time.Minute
)

// lookForForgotten looks for volumes that the kubelet has forgotten, once an hour until ctx ends. Otherwise the next
// renewal, which may be months away, would find those whose pod is gone.
func (d *Driver) lookForForgotten(ctx context.Context) error {
	forgotten := promauto.With(d.Metrics).NewGauge(prometheus.GaugeOpts{
		Name: "mayfly_volumes_forgotten",
		Help: "Volumes that the kubelet can't unmount, for its own file about them is missing; counted once an hour."})
	for {
		select {
		case <-time.After(lookInterval - rand.N(lookJitter)): //nolint:gosec // A jitter.
			forgotten.Set(float64(d.look()))
		case <-ctx.Done():
			return nil
		}
	}
}

// look makes volumes due whose pod is gone, and returns how many there are that the kubelet can't unpublish: what it
// needs for that is in a file beside the target, which it writes before each publish call (kubernetes
// pkg/volume/csi/csi_mounter.go, SetUpAt, and csi_plugin.go, NewUnmounter). That the file is missing does not say that
// the pod is gone: they stay.
func (d *Driver) look() (forgotten int) {
	for _, v := range d.store.All() {
		target := v.Record().Asked.Target
		switch {
		case target == "":
		case d.abandoned(target):
			d.queue.Set(v.ID(), renew.Entry{At: d.clocks.Now()})
		case d.KubeletRoot != "" && !missing(filepath.Dir(target)) && !unmountable(target):
			forgotten++
			d.warnForgotten(v, target)
		}
	}
	return forgotten
}

// unmountable reports whether the kubelet can unpublish the volume on target.
func unmountable(target string) bool {
	info, err := os.Stat(filepath.Join(filepath.Dir(target), "vol_data.json"))
	return err == nil && info.Size() > 0
}

func (d *Driver) warnForgotten(v *store.Volume, target string) {
	d.Log.Warn("the kubelet can't unmount a volume, for its file vol_data.json beside the target is missing: if the "+
		"pod is gone, unmount the target on the node, and the rest goes within an hour", v.Attr(), "target", target)
}
