package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// buildImages builds Mayfly's images as its README says, and what every node needs besides, and returns their archives.
func (c *Cluster) buildImages(ctx context.Context) ([]string, error) {
	if out, err := exec.CommandContext(ctx, "make", "-C", repository(), "build").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build Mayfly: %w: %s", err, out)
	}
	busybox, err := c.busybox(ctx)
	if err != nil {
		return nil, err
	}
	var archives []string
	for _, image := range []struct {
		name, dir string
		options   []string
	}{
		{"mayfly:devel", repository(), nil},
		{"mayfly-controller:devel", repository(), []string{"--target", "controller"}},
		{"busybox:stable", busybox, nil},
		{"pause:local", busybox, nil},
	} {
		archive, err := c.BuildImage(ctx, image.name, image.dir, image.options...)
		if err != nil {
			return nil, err
		}
		archives = append(archives, archive)
	}
	return archives, nil
}

// busybox makes the context of an image of Debian's busybox, which waits unless it is told to do something else.
func (c *Cluster) busybox(ctx context.Context) (string, error) {
	dir := filepath.Join(c.Dir, "images", "busybox")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if out, err := exec.CommandContext(ctx, "cp", "/bin/busybox", dir).CombinedOutput(); err != nil {
		return "", fmt.Errorf("find busybox: %w: %s", err, out)
	}
	return dir, c.write("images/busybox/Dockerfile", "busybox.Dockerfile", nil)
}

// BuildImage builds the image of a directory with a Dockerfile, and returns its archive. The options are buildah's.
func (c *Cluster) BuildImage(ctx context.Context, name, dir string, options ...string) (string, error) {
	images := filepath.Join(c.Dir, "images")
	archive := filepath.Join(images, strings.ReplaceAll(name, ":", "-")+".tar")
	if err := os.RemoveAll(archive); err != nil { // An archive can't be changed.
		return "", fmt.Errorf("build image %s: %w", name, err)
	}
	for _, args := range [][]string{
		slices.Concat([]string{"bud", "--isolation", "chroot", "--tag", name}, options, []string{dir}),
		{"push", name, "docker-archive:" + archive + ":" + name},
	} {
		args = append([]string{"--storage-driver", "vfs", "--root", filepath.Join(images, "storage"), "--runroot", filepath.Join(images, "run")}, args...)
		if out, err := exec.CommandContext(ctx, "buildah", args...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("build image %s: %w: %s", name, err, out)
		}
	}
	return archive, nil
}
