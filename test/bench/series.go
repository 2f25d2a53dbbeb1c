package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"

	"github.com/mayfly-csi/mayfly/test/kubelet"
)

const namespace = "bench"

// A bench is what is measured with.
type bench struct {
	options
	measured
	api     *api
	bare    *driver // The floor: see bareNode.
	drivers []*driver
	watches float64        // That the API server had before mayfly was started.
	refused map[string]int // Calls that had to be made again.
	notes   []string
}

// eachDriver does something with one driver after the other.
func (b *bench) eachDriver(f func(d *driver) error) error {
	for _, d := range b.drivers {
		if err := f(d); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	return nil
}

// part is how many of the volumes a round publishes or unpublishes.
func (b *bench) part() int { return b.volumes / b.rounds }

// each calls f for every number below n, some at once, and is how long each call took.
func (b *bench) each(n int, f func(i int) error) ([]time.Duration, error) {
	took := make([]time.Duration, n)
	var group errgroup.Group
	group.SetLimit(b.atOnce)
	for i := range n {
		group.Go(func() (err error) {
			took[i], err = timed(func() error { return f(i) })
			return err
		})
	}
	return took, group.Wait()
}

// held is one of the volumes that stay.
func (b *bench) held(d *driver, i int) kubelet.Volume { return b.volume(d, fmt.Sprint("held-", i)) }

func (b *bench) volume(d *driver, name string) kubelet.Volume {
	return kubelet.Volume{
		Pod:        kubelet.Pod{Namespace: namespace, Name: name, UID: d.name + "-" + name, ServiceAccount: "default"},
		Attributes: b.attributes,
	}
}

// publish publishes n of the volumes that stay, some at once, and is how long each took.
func (b *bench) publish(ctx context.Context, d *driver, from, n int) ([]time.Duration, error) {
	return b.each(n, func(i int) error { return publish1(ctx, d, b.held(d, from+i)) })
}

// unpublish ends them. It makes the calls alone: what the kubelet removes after it is not the driver's work.
func (b *bench) unpublish(ctx context.Context, d *driver, from, n int) ([]time.Duration, error) {
	return b.each(n, func(i int) error {
		v := b.held(d, from+i)
		_, err := d.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: v.ID(), TargetPath: d.Target(v)})
		return err
	})
}

// makePods makes the directories of n pods, which is the kubelet's work, and not the driver's.
func (b *bench) makePods(d *driver, from, n int) error {
	for i := range n {
		if err := os.MkdirAll(filepath.Dir(d.Target(b.held(d, from+i))), 0o750); err != nil {
			return fmt.Errorf("make a pod's directory: %w", err)
		}
	}
	return nil
}

func publish1(ctx context.Context, d *driver, v kubelet.Volume) error {
	_, err := d.Publish(ctx, d.Driver, v)
	return err
}

func timed(f func() error) (time.Duration, error) {
	begin := time.Now()
	err := f()
	return time.Since(begin), err
}
