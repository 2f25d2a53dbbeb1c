package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// oneByOne publishes one volume after the other, with the floors and every driver by turns.
func (b *bench) oneByOne(ctx context.Context) error {
	// By drivers; the floor of the first is without a name.
	first, republish := map[string][]float64{}, map[string][]float64{}
	for i := range b.serial / b.rounds {
		took, err := timed(func() error { return b.api.issue(ctx) })
		if err != nil {
			return err
		}
		first[""] = append(first[""], milli(took))
		if err := b.republish1(ctx, b.bare, b.volume(b.bare, "serial"), republish); err != nil {
			return err
		}
		err = b.eachDriver(func(d *driver) error {
			v := b.volume(d, fmt.Sprint("serial-", i))
			took, err := timed(func() error { return publish1(ctx, d, v) })
			if err != nil {
				return err
			}
			first[d.name] = append(first[d.name], milli(took))
			if err := b.republish1(ctx, d, v, republish); err != nil {
				return err
			}
			return d.Unpublish(ctx, d.Driver, v)
		})
		if err != nil {
			return err
		}
	}
	b.addFloor(serial, median(first[""]))
	b.addFloor(again, median(republish[b.bare.name]))
	for _, d := range b.drivers {
		b.add(serial, d.name, median(first[d.name]))
		b.add(again, d.name, median(republish[d.name]))
	}
	return nil
}

// republish1 publishes a volume some times more.
func (b *bench) republish1(ctx context.Context, d *driver, v kubelet.Volume, took map[string][]float64) error {
	for range 10 {
		one, err := timed(func() error { return publish1(ctx, d, v) })
		if err != nil {
			return err
		}
		took[d.name] = append(took[d.name], milli(one))
	}
	return nil
}

// fill publishes the volumes, a part in each round, between rounds of the floor. They stay.
func (b *bench) fill(ctx context.Context) error {
	empty := map[string]float64{}
	for _, d := range append(slices.Clone(b.drivers), b.bare) {
		var err error
		if empty[d.name], err = d.charged(); err != nil {
			return err
		}
	}
	if err := b.publishFloor(ctx, 0); err != nil {
		return err
	}
	for round := range b.rounds {
		if err := b.eachDriver(func(d *driver) error { return b.publishPart(ctx, d, round) }); err != nil {
			return err
		}
		if err := b.publishFloor(ctx, round+1); err != nil { // The control plane slows down as its store fills.
			return err
		}
	}
	full, err := b.bare.charged()
	if b.bare.group != nil {
		b.addFloor(groupVolume, (full-empty[b.bare.name])/1000/float64((b.rounds+1)*b.part()))
	}
	return errors.Join(err, b.eachDriver(func(d *driver) error {
		full, err := d.charged()
		if d.group != nil {
			b.add(groupVolume, d.name, (full-empty[d.name])/1000/float64(b.volumes))
		}
		return err
	}))
}

// publishFloor measures what as many certificates and volumes cost without a driver.
func (b *bench) publishFloor(ctx context.Context, round int) error {
	begin := time.Now()
	client, err := spent(func() error {
		_, err := b.each(b.part(), func(int) error { return b.api.issue(ctx) })
		return err
	})
	if err != nil {
		return err
	}
	b.addFloor(rate, float64(b.part())/time.Since(begin).Seconds())
	if err := b.makePods(b.bare, round*b.part(), b.part()); err != nil {
		return err
	}
	bare, err := b.bare.spent(func() error {
		_, err := b.publish(ctx, b.bare, round*b.part(), b.part())
		return err
	})
	b.addFloorCPU(client.plus(bare).by(b.part()))
	return err
}

// publishPart publishes the volumes of one round.
func (b *bench) publishPart(ctx context.Context, d *driver, round int) error {
	if err := b.makePods(d, round*b.part(), b.part()); err != nil {
		return err
	}
	refused := make([]int, b.part())
	cpu, err := d.spent(func() error {
		begin := time.Now()
		_, err := b.each(b.part(), func(i int) error {
			_, err := d.Mount(ctx, d.Driver, b.held(d, round*b.part()+i), func(error) { refused[i]++ })
			return err
		})
		if err != nil {
			return err
		}
		b.add(rate, d.name, float64(b.part())/time.Since(begin).Seconds())
		return b.api.drain(ctx)
	})
	for _, n := range refused {
		b.refused[d.name] += n
	}
	b.addCPU(d.name, cpu.by(b.part()))
	return err
}
