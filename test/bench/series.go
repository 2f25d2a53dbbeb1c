package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mayfly-csi/mayfly/test/kubelet"
)

const namespace = "bench"

// A bench is what is measured with.
type bench struct {
	options
	measured
	api     *api
	nothing *driver // A node plugin that does nothing.
	drivers []*driver
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

func publish1(ctx context.Context, d *driver, v kubelet.Volume) error {
	_, err := d.Publish(ctx, d.Driver, v)
	return err
}

func timed(f func() error) (time.Duration, error) {
	begin := time.Now()
	err := f()
	return time.Since(begin), err
}
