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
	// perSecond is how many pods of a node get Events each second: a problem may concern all pods of the cluster.
	perSecond = 5
	senders   = 4
	// timeout is how long one Event may dequeue.
	timeout = 30 * time.Second
	// retryDelay is the delay after an Event that could not be sent.
	retryDelay = time.Minute
)

// A Sender sends a warning to the pod's author.
type Sender interface {
	Warn(ctx context.Context, pod signer.Pod, reason, message string) error
}

// A Warning is the content of an Event.
type Warning struct{ Reason, Message string }

// A Queue sends warnings in the background, so that no work on a volume waits for the API server, and tries again
// those that can't be sent. Make one with [NewQueue], run it once and close it.
type Queue struct {
	sender Sender
	log    *slog.Logger
	queue  *renew.ClockQueue

	mu      sync.Mutex
	volumes map[string]*warnings
}

// warnings holds the unsent warnings of a volume's pod, by their topics.
type warnings struct {
	pod     signer.Pod
	byTopic map[string]Warning
}

// NewQueue makes a queue. Without a sender it drops its warnings.
func NewQueue(sender Sender, log *slog.Logger) (q *Queue, err error) {
	q = &Queue{sender: sender, log: log, volumes: map[string]*warnings{}}
	q.queue, err = renew.NewClockQueue(perSecond, senders, q.send)
	return q, err
}

// Run sends warnings until ctx ends.
func (q *Queue) Run(ctx context.Context) error { return q.queue.Run(ctx) }

// Close frees the queue's clock.
func (q *Queue) Close() error { return q.queue.Close() }

// Warn sends a warning to the pod of a volume after a delay, in place of an unsent one on the same topic.
func (q *Queue) Warn(id string, pod signer.Pod, topic string, w Warning, delay time.Duration) {
	if q.sender == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	of := q.volumes[id]
	if of == nil {
		of = &warnings{byTopic: map[string]Warning{}}
		q.volumes[id] = of
	}
	of.pod, of.byTopic[topic] = pod, w
	q.queue.Set(id, renew.Entry{At: time.Now().Add(delay)})
}

// Withdraw drops the unsent warning on a topic, if there is one.
func (q *Queue) Withdraw(id, topic string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if of := q.volumes[id]; of != nil {
		delete(of.byTopic, topic)
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
	pod, unsent := q.dequeue(id)
	for _, topic := range slices.Sorted(maps.Keys(unsent)) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		err := q.sender.Warn(ctx, pod, unsent[topic].Reason, unsent[topic].Message)
		cancel()
		if err == nil {
			delete(unsent, topic)
			continue
		}
		q.log.Warn("an Event was not sent", "pod", pod.Namespace+"/"+pod.Name, "error", err)
	}
	q.requeue(id, unsent)
}

// dequeue removes the volume's warnings from the queue and returns them.
func (q *Queue) dequeue(id string) (signer.Pod, map[string]Warning) {
	q.mu.Lock()
	defer q.mu.Unlock()
	of := q.volumes[id]
	if of == nil {
		return signer.Pod{}, nil
	}
	unsent := of.byTopic
	of.byTopic = map[string]Warning{}
	return of.pod, unsent
}

// requeue queues what could not be sent again, unless there is a newer warning on the same topic.
func (q *Queue) requeue(id string, unsent map[string]Warning) {
	q.mu.Lock()
	defer q.mu.Unlock()
	of := q.volumes[id]
	if of == nil {
		return
	}
	for topic, w := range unsent {
		if _, newer := of.byTopic[topic]; !newer {
			of.byTopic[topic] = w
		}
	}
	switch {
	case len(unsent) > 0:
		q.queue.Set(id, renew.Entry{At: time.Now().Add(retryDelay)})
	case len(of.byTopic) == 0:
		delete(q.volumes, id)
	}
}
