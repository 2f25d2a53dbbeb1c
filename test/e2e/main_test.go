// Package e2e tells stories of pods on a real Kubernetes: what whoever writes a pod or runs a cluster sees.
//
// They run on the cluster of `make cluster-up` ($MAYFLY_CLUSTER), which then stays, or on one of their own.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/mayfly-csi/mayfly/test/cluster"
)

// shared is the cluster of all stories.
var shared *cluster.Cluster

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx := context.Background()
	c, giveBack, err := cluster.Borrow(ctx, os.Getenv("MAYFLY_CLUSTER"), func(format string, args ...any) { fmt.Printf(format+"\n", args...) })
	if err != nil {
		return 1, err
	}
	shared = c
	interrupted, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(interrupted, func() {
		fmt.Fprintln(os.Stderr, "interrupted", giveBack())
		os.Exit(1)
	})()
	defer func() { err = errors.Join(err, giveBack()) }()
	if err := importWorkload(ctx); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// importWorkload gives the nodes the image of the stories' pods.
func importWorkload(ctx context.Context) error { return importProgram(ctx, workload, "workload") }

// importProgram builds the program of a directory and its image, and gives that to the nodes.
func importProgram(ctx context.Context, image, dir string) error {
	build, err := os.MkdirTemp("", "image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(build)
	cmd := exec.CommandContext(ctx, "go", "build", "-o", build+"/", ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", image, err, out)
	}
	if out, err := exec.CommandContext(ctx, "cp", filepath.Join(dir, "Dockerfile"), build).CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", image, err, out)
	}
	archive, err := shared.BuildImage(ctx, image, build)
	if err != nil {
		return err
	}
	return shared.Import(ctx, archive)
}
