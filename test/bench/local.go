package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"
)

// localSigner measures how many volumes a second mayfly publishes with its embedded CA, between rounds of the floor.
func (b *bench) localSigner(ctx context.Context) (err error) {
	d, err := newMayfly(b.options, nil, filepath.Join(b.dir, "local"), "--signer=local")
	if err != nil {
		return err
	}
	if err := d.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if err := b.fillAndEmpty(ctx, b.bare, b.addFloor); err != nil {
		return err
	}
	for range b.rounds {
		if err := b.fillAndEmpty(ctx, d, func(row string, value float64) { b.add(row, d.name, value) }); err != nil {
			return err
		}
		if err := b.fillAndEmpty(ctx, b.bare, b.addFloor); err != nil {
			return err
		}
	}
	return nil
}

// fillAndEmpty measures how many volumes a second a driver publishes, and ends them.
func (b *bench) fillAndEmpty(ctx context.Context, d *driver, add func(row string, value float64)) error {
	if err := b.makePods(d, 0, b.volumes); err != nil {
		return err
	}
	begin := time.Now()
	if _, err := b.publish(ctx, d, 0, b.volumes); err != nil {
		return err
	}
	add(localRate, float64(b.volumes)/time.Since(begin).Seconds())
	_, err := b.unpublish(ctx, d, 0, b.volumes)
	return err
}
