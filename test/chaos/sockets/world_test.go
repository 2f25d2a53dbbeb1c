package sockets

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/mayfly-csi/mayfly/signer/local"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// bound is how long anything may take until it is as it should be, on a machine that is busy.
const bound = time.Minute

// A world is a node with its kubelet, and node plugins one after another or side by side.
type world struct {
	kubelet.Kubelet
	ctx       context.Context
	rand      *rand.Rand
	running   *process // It serves, or is about to.
	next      *process // It waits for the end of the other one; nil: there is none.
	published []kubelet.Volume
	gone      []kubelet.Volume // Since the last check.
	pods      int              // So far.
	versions  int              // Of node plugins so far.
	steps     []string         // What was done.
	log       []string         // The paths of all logs.
}

// newWorld makes a world in which nothing runs.
func newWorld(ctx context.Context, seed uint64) (*world, error) {
	root, err := os.MkdirTemp("", "sock-") // Not t.TempDir, whose path is too long for a socket.
	if err != nil {
		return nil, err
	}
	w := &world{Kubelet: kubelet.Kubelet{Root: root}, ctx: ctx, rand: rand.New(rand.NewPCG(seed, 0))}
	_, err1 := kubelet.New(root)
	_, err2 := local.Open(authority(root)) // Two processes at once would make two.
	if err := errors.Join(err1, err2); err != nil {
		return nil, errors.Join(err, kubelet.CleanUp(root))
	}
	return w, nil
}

// note notes what is done.
func (w *world) note(format string, args ...any) {
	w.steps = append(w.steps, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// until waits for a condition, which is looked at often, and returns what is wrong if that stays.
func (w *world) until(what string, wrong func() error) error {
	deadline := time.Now().Add(bound)
	for {
		err := wrong()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: %w", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// connect registers the driver as the kubelet does, and demands that the node plugin that runs is the one that answers.
func (w *world) connect() (d kubelet.Driver, err error) {
	err = w.until("the driver is not registered", func() error {
		ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
		defer cancel()
		if d, err = w.Register(ctx, name); err != nil {
			return err
		}
		if err = w.running.answers(ctx, d); err != nil {
			err = errors.Join(err, d.Close())
		}
		return err
	})
	return d, err
}

// call makes a call of the kubelet again and again until it succeeds.
func (w *world) call(what string, do func(context.Context, kubelet.Driver) error) error {
	return w.until(what, func() error {
		d, err := w.connect()
		if err != nil {
			return err
		}
		defer d.Close()
		return do(w.ctx, d)
	})
}

// close ends all that runs and removes it. If the oracle has found something it adds what was done, and the logs.
func (w *world) close(found error) error {
	for _, p := range []*process{w.running, w.next} {
		if p != nil {
			_ = p.end(syscall.SIGKILL)
			w.log = append(w.log, p.log)
		}
	}
	if found != nil {
		found = fmt.Errorf("%w\n%s%s", found, strings.Join(w.steps, "\n"), w.tails())
	}
	return errors.Join(found, kubelet.CleanUp(w.Root))
}

// tails returns the ends of the last logs.
func (w *world) tails() string {
	var text strings.Builder
	for _, path := range w.log[max(0, len(w.log)-2):] {
		log, _ := os.ReadFile(path)
		fmt.Fprintf(&text, "\n%s:\n%s", path, log[max(0, len(log)-8<<10):])
	}
	return text.String()
}
