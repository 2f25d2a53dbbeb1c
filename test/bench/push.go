package main

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mayfly-csi/mayfly/signer/local"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// push measures how long it takes until all volumes of a node have the CA certificates of a file that has changed.
// Where they come from makes a difference of one event.
func (b *bench) push(ctx context.Context) (err error) {
	file := filepath.Join(b.dir, "corp.pem")
	if err := change(file); err != nil {
		return err
	}
	d, err := newMayfly(b.options, nil, filepath.Join(b.dir, "push"), "--signer=local", "--trust-file=corp="+file)
	if err != nil {
		return err
	}
	if err := d.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	volume := func(i int) kubelet.Volume {
		v := b.held(d, i)
		v.Attributes = maps.Clone(v.Attributes)
		v.Attributes["csi.mayfly.dev/trust"] = "issuer,file:corp"
		return v
	}
	if _, err := b.each(b.volumes, func(i int) error { return publish1(ctx, d, volume(i)) }); err != nil {
		return err
	}
	for range b.rounds {
		took, err := timed(func() error {
			if err := change(file); err != nil {
				return err
			}
			return arrived(ctx, file, b.volumes, func(i int) string { return d.Target(volume(i)) })
		})
		if err != nil {
			return err
		}
		b.add(pushed, d.name, milli(took))
	}
	_, err = b.unpublish(ctx, d, 0, b.volumes)
	return err
}

// change puts a new CA certificate in the file.
func change(file string) error {
	dir, err := os.MkdirTemp(filepath.Dir(file), "ca-")
	if err != nil {
		return err
	}
	dir = filepath.Join(dir, "ca")
	if _, err := local.Open(dir); err != nil {
		return err
	}
	return os.Rename(filepath.Join(dir, local.CertificateFile), file)
}

// arrived waits until the CA certificates at each target end with what the file has.
func arrived(ctx context.Context, file string, volumes int, target func(i int) string) error {
	want, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	left := make([]int, volumes)
	for i := range left {
		left[i] = i
	}
	for len(left) > 0 && ctx.Err() == nil && err == nil {
		left = slices.DeleteFunc(left, func(i int) bool {
			var text []byte
			if err == nil {
				err = kubelet.ReadSet(target(i), func(dir string) (err error) {
					text, err = os.ReadFile(filepath.Join(dir, "ca.crt"))
					return err
				})
			}
			return bytes.HasSuffix(text, want)
		})
		time.Sleep(time.Millisecond) // Who looks all the time slows down what it looks for.
	}
	return errors.Join(err, ctx.Err())
}
