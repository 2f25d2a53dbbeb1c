package event

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/signer"
)

const (
	// perSecond is how many pods of a node get Events each second: what is wrong may be wrong for all pods of the cluster.
	perSecond = 5
	senders   = 4
	// timeout is how long one Event may take.
	timeout = 30 * time.Second
	// retryDelay is after how long an Event is sent again that could not be sent.
	retryDelay = time.Minute
)

// A Sender sends a warning to the pod's author.
type Sender interface {
	Warn(ctx context.Context, pod signer.Pod, reason, message string) error
}

// A Warning is what an Event says.
type Warning struct{ Reason, Message string }

// A Queue sends warnings in the background, so that no work on a volume waits for the API server. Warnings that can't
// be sent are sent later. Make one with [NewQueue], run it once and close it.
type Queue struct {
	sender Sender
	log    *slog.Logger
	queue  *renew.ClockQueue

	mu      sync.Mutex
	volumes map[string]*warnings
}

// warnings are those of a volume's pod that are not sent yet, by what they are about.
type warnings struct {
	pod signer.Pod
	by  map[string]Warning
}

// NewQueue makes a queue; without a sender its warnings go nowhere.
func NewQueue(sender Sender, log *slog.Logger) (q *Queue, err error) {
	q = &Queue{sender: sender, log: log, volumes: map[string]*warnings{}}
	q.queue, err = renew.NewClockQueue(perSecond, senders, q.send)
	return q, err
}

// Run sends warnings until ctx ends.
func (q *Queue) Run(ctx context.Context) error { return q.queue.Run(ctx) }

// Close frees the queue's clock.
func (q *Queue) Close() error { return q.queue.Close() }

// Warn sends a warning to the pod of a volume after a delay, in place of an unsent one about the same.
func (q *Queue) Warn(id string, pod signer.Pod, about string, w Warning, delay time.Duration) {
	if q.sender == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	of := q.volumes[id]
	if of == nil {
		of = &warnings{by: map[string]Warning{}}
		q.volumes[id] = of
	}
	of.pod, of.by[about] = pod, w
	q.queue.Set(id, time.Now().Add(delay), time.Time{})
}

// Withdraw drops an unsent warning: what it is about is over.
func (q *Queue) Withdraw(id, about string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if of := q.volumes[id]; of != nil {
		delete(of.by, about)
	}
}

// Forget drops all warnings of a volume.
func (q *Queue) Forget(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.volumes, id)
	q.queue.Remove(id)
}

// send sends the warnings of a volume.
func (q *Queue) send(ctx context.Context, id string) {
	pod, unsent := q.take(id)
	for _, about := range slices.Sorted(maps.Keys(unsent)) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		err := q.sender.Warn(ctx, pod, unsent[about].Reason, unsent[about].Message)
		cancel()
		if err == nil {
			delete(unsent, about)
			continue
		}
		q.log.Warn("an Event was not sent", "pod", pod.Namespace+"/"+pod.Name, "error", err)
	}
	q.putBack(id, unsent)
}

// take returns the volume's warnings, which are its own from now on.
func (q *Queue) take(id string) (signer.Pod, map[string]Warning) {
	q.mu.Lock()
	defer q.mu.Unlock()
	of := q.volumes[id]
	if of == nil {
		return signer.Pod{}, nil
	}
	unsent := of.by
	of.by = map[string]Warning{}
	return of.pod, unsent
}

// putBack keeps what could not be sent, unless a newer warning about the same came meanwhile.
func (q *Queue) putBack(id string, unsent map[string]Warning) {
	q.mu.Lock()
	defer q.mu.Unlock()
	of := q.volumes[id]
	if of == nil {
		return
	}
	for about, w := range unsent {
		if _, newer := of.by[about]; !newer {
			of.by[about] = w
		}
	}
	switch {
	case len(unsent) > 0:
		q.queue.Set(id, time.Now().Add(retryDelay), time.Time{})
	case len(of.by) == 0:
		delete(q.volumes, id)
	}
}
