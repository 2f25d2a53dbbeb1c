package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mayfly-csi/mayfly/signer/local"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// pushes is how long it takes until all volumes of a node have the CA certificates of a file that has changed. Where they come from makes a difference of
// one event.
func pushes(ctx context.Context, o options, dir string) (took time.Duration, err error) {
	file := filepath.Join(dir, "corp.pem")
	if err := change(file); err != nil {
		return 0, err
	}
	d, err := startMayfly(ctx, o, filepath.Join(dir, "push"), "--signer=local", "--trust-file=corp="+file)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	b := bench{options: o}
	volume := func(i int) kubelet.Volume {
		v := b.volume(d, fmt.Sprint("push-", i))
		v.Attributes = map[string]string{"csi.mayfly.dev/dns-names": "web", "csi.mayfly.dev/trust": "issuer,file:corp"}
		return v
	}
	if _, err := b.each(func(i int) error { return publish1(ctx, d, volume(i)) }); err != nil {
		return 0, err
	}
	var all []time.Duration
	for range o.rounds {
		took, err := timed(func() error {
			if err := change(file); err != nil {
				return err
			}
			return arrived(ctx, file, o.volumes, func(i int) string { return filepath.Join(d.Target(volume(i)), "ca.crt") })
		})
		if err != nil {
			return 0, err
		}
		all = append(all, took)
	}
	_, err = b.each(func(i int) error { return unpublish(ctx, d, volume(i)) })
	return median(all), errors.Join(err, d.clean())
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

// arrived waits until each of the pods' files ends with what the file has.
func arrived(ctx context.Context, file string, volumes int, path func(i int) string) error {
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
				text, err = os.ReadFile(path(i))
			}
			return bytes.HasSuffix(text, want)
		})
		time.Sleep(time.Millisecond) // Who looks all the time slows down what it looks for.
	}
	return errors.Join(err, ctx.Err())
}
