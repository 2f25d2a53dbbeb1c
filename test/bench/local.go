package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"
)

// localSigner measures how many volumes a second mayfly publishes with its embedded CA, between rounds of bare volumes.
func (b *bench) localSigner(ctx context.Context) (err error) {
	d, err := newMayfly(b.options, nil, filepath.Join(b.dir, "local"), "--signer=local")
	if err != nil {
		return err
	}
	if err := d.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	floor := func() error {
		bare, err := b.bareVolumes(b.volumes)
		b.addFloor(localRate, bare.rate)
		return err
	}
	if err := floor(); err != nil {
		return err
	}
	for range b.rounds {
		if err := b.makePods(d, 0, b.volumes); err != nil {
			return err
		}
		begin := time.Now()
		if _, err := b.each(b.volumes, func(i int) error { return publish1(ctx, d, b.held(d, i)) }); err != nil {
			return err
		}
		b.add(localRate, d.name, float64(b.volumes)/time.Since(begin).Seconds())
		if _, err := b.each(b.volumes, func(i int) error { return unpublish(ctx, d, b.held(d, i)) }); err != nil {
			return err
		}
		if err := floor(); err != nil {
			return err
		}
	}
	return nil
}
