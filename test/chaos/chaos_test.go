// Package chaos tortures the node plugin: steps that a seed draws, and an oracle after each of them.
//
// The driver runs in this process, in a bubble of [testing/synctest]: its time is not the machine's, so that hours go by
// in an instant. Files and mounts are real. API server, issuers and kubelet are played here.
package chaos

import (
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mayfly-csi/mayfly/test/kubelet"
)

var (
	seed  = flag.Uint64("seed", 1, "the first seed")
	seeds = flag.Uint64("seeds", 3, "how many seeds")
	count = flag.Int("steps", 600, "how many steps for each seed")
)

func TestChaos(t *testing.T) {
	open := &sync.RWMutex{}
	for n := *seed; n < *seed+*seeds; n++ {
		t.Run(fmt.Sprint("seed ", n), func(t *testing.T) {
			t.Parallel()
			run(t, n, *count, open)
		})
	}
}

// run takes the steps of a seed.
func run(t *testing.T, seed uint64, count int, open *sync.RWMutex) {
	open.RLock()
	defer open.RUnlock()
	root, err := os.MkdirTemp("", "chaos-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := kubelet.CleanUp(root); err != nil {
			t.Error(err)
		}
	}()
	if _, err := kubelet.New(root); err != nil {
		t.Fatal(err)
	}
	now := time.Now().Round(0)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, root, now, open)
		w.running = w.start()
		for i := 0; i < count && !w.failed; i++ {
			w.steps = append(w.steps, fmt.Sprintf("step %d", i+1))
			w.take()
			w.check()
			open.RUnlock() // Another world may want to lock it.
			open.RLock()
		}
		if !w.failed {
			w.finish()
		}
		if w.failed {
			t.Logf("replay: go test ./test/chaos -run TestChaos -seed %d -seeds 1 -steps %d", seed, count)
		}
		w.close()
	})
}
