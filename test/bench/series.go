package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"

	"github.com/mayfly-csi/mayfly/test/kubelet"
)

const namespace = "bench"

// A bench is what is measured with.
type bench struct {
	options
	api     *api
	drivers []*driver
}

// numbers are what one driver was measured at; the zero value of a number: not measured.
type numbers struct {
	Driver          string
	Serial          time.Duration // Median.
	Rate            float64       // Volumes a second.
	CPU             time.Duration // Of the process, for one publish.
	Republish       time.Duration // Median.
	RepublishAtOnce time.Duration // Median.
	UnpublishAtOnce time.Duration // Median.
	HeldCPU         float64       // Cores.
	HeldMemory      float64       // Bytes.
	Refused         int           // Calls that had to be made again.

	rates, cpus, unpublishes []float64 // By rounds.
}

func (b *bench) run(ctx context.Context, r *report) error {
	r.Drivers = make([]numbers, len(b.drivers))
	for i, d := range b.drivers {
		r.Drivers[i].Driver = d.name
	}
	if err := b.oneByOne(ctx, r); err != nil {
		return err
	}
	if err := b.floor(ctx, r); err != nil {
		return err
	}
	for round := range b.rounds {
		for i, d := range b.drivers {
			if err := b.round(ctx, d, &r.Drivers[i], round == b.rounds-1); err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
		}
		if err := b.floor(ctx, r); err != nil { // The control plane slows down as its store fills.
			return err
		}
	}
	r.Rate, r.Client = median(r.rates), median(r.clients)
	for i := range r.Drivers {
		r.Drivers[i].sum()
	}
	return nil
}

func (n *numbers) sum() {
	n.Rate = median(n.rates)
	n.CPU = time.Duration(median(n.cpus))
	n.UnpublishAtOnce = time.Duration(median(n.unpublishes))
}

// oneByOne publishes one volume after the other, with the floor and every driver by turns.
func (b *bench) oneByOne(ctx context.Context, r *report) error {
	floor, publish, again := []time.Duration{}, make([][]time.Duration, len(b.drivers)), make([][]time.Duration, len(b.drivers))
	for i := range b.serial {
		took, err := timed(func() error { return b.api.issue(ctx) })
		if err != nil {
			return err
		}
		floor = append(floor, took)
		for j, d := range b.drivers {
			v := b.volume(d, fmt.Sprint("serial-", i))
			took, err := timed(func() error { return publish1(ctx, d, v) })
			if err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
			publish[j] = append(publish[j], took)
			for range 10 {
				took, err := timed(func() error { return publish1(ctx, d, v) })
				if err != nil {
					return fmt.Errorf("%s: %w", d.name, err)
				}
				again[j] = append(again[j], took)
			}
			if err := d.Unpublish(ctx, d.Driver, v); err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
		}
	}
	r.Serial = median(floor)
	for j := range b.drivers {
		r.Drivers[j].Serial, r.Drivers[j].Republish = median(publish[j]), median(again[j])
	}
	return nil
}

// floor measures how many requests a second the API server and cert-manager manage alone, and what one costs the client on the processor.
func (b *bench) floor(ctx context.Context, r *report) error {
	self := &driver{name: "bench", pid: os.Getpid()}
	before, err := self.cpu()
	if err != nil {
		return err
	}
	begin := time.Now()
	if _, err := b.each(func(int) error { return b.api.issue(ctx) }); err != nil {
		return err
	}
	r.rates = append(r.rates, float64(b.volumes)/time.Since(begin).Seconds())
	after, err := self.cpu()
	r.clients = append(r.clients, (after-before)/time.Duration(b.volumes))
	return err
}

// round fills a driver with volumes and empties it again; in between, the last round looks at how it holds them.
func (b *bench) round(ctx context.Context, d *driver, n *numbers, last bool) error {
	if err := b.prepare(d, "held-"); err != nil {
		return err
	}
	before, err := d.cpu()
	if err != nil {
		return err
	}
	var refused sync.Map
	begin := time.Now()
	_, err = b.each(func(i int) error {
		_, err := d.Mount(ctx, d.Driver, b.volume(d, fmt.Sprint("held-", i)), func(err error) { refused.Store(i, err) })
		return err
	})
	if err != nil {
		return err
	}
	n.rates = append(n.rates, float64(b.volumes)/time.Since(begin).Seconds())
	if err := b.api.drain(ctx); err != nil {
		return err
	}
	after, err := d.cpu()
	if err != nil {
		return err
	}
	n.cpus = append(n.cpus, float64(after-before)/float64(b.volumes))
	refused.Range(func(any, any) bool { n.Refused++; return true })
	if last {
		if err := b.hold(ctx, d, n); err != nil {
			return err
		}
	}
	took, err := b.each(func(i int) error { return unpublish(ctx, d, b.volume(d, fmt.Sprint("held-", i))) })
	n.unpublishes = append(n.unpublishes, float64(median(took)))
	return errors.Join(err, d.clean())
}

// unpublish makes the call alone: what the kubelet removes after it is not the driver's work.
func unpublish(ctx context.Context, d *driver, v kubelet.Volume) error {
	_, err := d.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: v.ID(), TargetPath: d.Target(v)})
	return err
}

// prepare makes the directories of pods, which is the kubelet's work and not the driver's.
func (b *bench) prepare(d *driver, pods string) error {
	for i := range b.volumes {
		if err := os.MkdirAll(filepath.Dir(d.Target(b.volume(d, fmt.Sprint(pods, i)))), 0o750); err != nil {
			return fmt.Errorf("make a pod's directory: %w", err)
		}
	}
	return nil
}

// clean removes the directories of pods that are gone.
func (d *driver) clean() error { return os.RemoveAll(filepath.Join(d.Root, "pods")) }

// hold watches a driver that has volumes and nothing to do, and then has it publish them once more.
func (b *bench) hold(ctx context.Context, d *driver, n *numbers) error {
	before, err := d.cpu()
	if err != nil {
		return err
	}
	begin := time.Now()
	select {
	case <-time.After(b.idle):
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := d.cpu()
	if err != nil {
		return err
	}
	n.HeldCPU = float64(after-before) / float64(time.Since(begin))
	if n.HeldMemory, err = d.resident(); err != nil {
		return err
	}
	var all []time.Duration
	for range 10 { // One pass is over in a moment.
		took, err := b.each(func(i int) error { return publish1(ctx, d, b.volume(d, fmt.Sprint("held-", i))) })
		if err != nil {
			return err
		}
		all = append(all, took...)
	}
	n.RepublishAtOnce = median(all)
	return nil
}

// localRate is how many volumes a second mayfly publishes with its embedded CA.
func localRate(ctx context.Context, o options, dir string) (rate float64, err error) {
	d, err := startMayfly(ctx, o, filepath.Join(dir, "local"), "--signer=local")
	if err != nil {
		return 0, err
	}
	b := bench{options: o}
	var rates []float64
	for range o.rounds {
		if err = b.prepare(d, "local-"); err != nil {
			break
		}
		begin := time.Now()
		if _, err = b.each(func(i int) error { return publish1(ctx, d, b.volume(d, fmt.Sprint("local-", i))) }); err != nil {
			break
		}
		rates = append(rates, float64(o.volumes)/time.Since(begin).Seconds())
		if _, err = b.each(func(i int) error { return unpublish(ctx, d, b.volume(d, fmt.Sprint("local-", i))) }); err != nil {
			break
		}
		if err = d.clean(); err != nil {
			break
		}
	}
	if stopErr := d.stop(); err != nil || stopErr != nil {
		return 0, fmt.Errorf("local signer: %w", errors.Join(err, stopErr))
	}
	return median(rates), nil
}

// each calls f for every volume, some at once, and is how long each call took.
func (b *bench) each(f func(i int) error) ([]time.Duration, error) {
	took := make([]time.Duration, b.volumes)
	var group errgroup.Group
	group.SetLimit(b.atOnce)
	for i := range b.volumes {
		group.Go(func() (err error) {
			took[i], err = timed(func() error { return f(i) })
			return err
		})
	}
	return took, group.Wait()
}

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

func median[T time.Duration | float64](of []T) T {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}
