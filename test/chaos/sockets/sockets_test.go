// Package sockets tortures the node plugin over its real sockets, in real time: goroutines of a bubble (testing/synctest)
// can't wait on a socket. Each node plugin is a process of its own, which can be killed; the kubelet is played here.
package sockets

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

var (
	seed  = flag.Uint64("seed", 1, "the first seed")
	seeds = flag.Uint64("seeds", 3, "how many seeds")
	count = flag.Int("steps", 600, "how many steps the bubble takes for each seed; here a twentieth is taken, in real time")
)

// TestMain runs a node plugin instead of the tests in the processes that the tests start.
func TestMain(m *testing.M) {
	if root := os.Getenv(rootVariable); root != "" {
		os.Exit(serve(root, os.Getenv(versionVariable)))
	}
	goleak.VerifyTestMain(m)
}

// The seeds run at the same time, however few processors there are: they wait more than they work.
func TestSockets(t *testing.T) {
	var all sync.WaitGroup
	for n := *seed; n < *seed+*seeds; n++ {
		all.Go(func() {
			if err := run(t.Context(), n, (*count+19)/20); err != nil {
				t.Errorf("%v\nreplay: go test ./test/chaos/sockets -seed %d -seeds 1 -steps %d", err, n, *count)
			}
		})
	}
	all.Wait()
}

// run takes the steps of a seed, and returns what the oracle finds first.
func run(ctx context.Context, seed uint64, count int) (err error) {
	w, err := newWorld(ctx, seed)
	if err != nil {
		return err
	}
	defer func() { err = w.close(err) }()
	if err := w.replace(); err != nil {
		return err
	}
	for i := range count {
		if err := w.take(); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
		if err := w.check(); err != nil {
			return fmt.Errorf("after step %d: %w", i+1, err)
		}
	}
	return w.finish()
}
