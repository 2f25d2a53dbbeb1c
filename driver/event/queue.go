package event

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

const (
	// perSecond is how many pods of a node get Events each second: a problem may concern all pods of the cluster.
	perSecond = 5
	senders   = 4
	// timeout is how long the sending of one Event may take.
	timeout = 30 * time.Second
	// retryDelay is the delay after an Event that could not be sent.
	retryDelay = time.Minute
)

// A Sender sends an Event to the pod's author.
type Sender interface {
	Send(ctx context.Context, pod signer.Pod, e Event) error
}

// An Event is what a pod's author reads. Its type is one of Kubernetes': Normal or Warning.
type Event struct{ Type, Reason, Message string }

// A Warning is the content of an Event of that type.
type Warning struct{ Reason, Message string }

// A Queue sends Events in the background, so that no work on a volume waits for the API server, and tries again those
// that can't be sent. Make one with [NewQueue], run it once and close it.
type Queue struct {
	sender Sender
	log    *slog.Logger
	clocks renew.Clocks
	queue  *renew.ClockQueue

	mu      sync.Mutex
	volumes map[string]*events
}

// events holds the unsent Events of a volume's pod, by their topics.
type events struct {
	pod     signer.Pod
	byTopic map[string]*unsent
}

// An unsent is an Event that is due some time after it was queued. Once it is sent, withdrawn or replaced, its topic
// has it no more.
type unsent struct {
	Event
	queuedAt, dueAt time.Time
	sending         bool
}

// due reports whether it is due: also if the clock was set back to before it was queued, since when is not known then.
func (u *unsent) due(now time.Time) bool { return !u.dueAt.After(now) || now.Before(u.queuedAt) }

// delay makes it due some time after now.
func (u *unsent) delay(now time.Time, d time.Duration) { u.queuedAt, u.dueAt = now, now.Add(d) }

// NewQueue makes a queue. Without a sender it drops its Events.
func NewQueue(sender Sender, clocks renew.Clocks, log *slog.Logger) (q *Queue, err error) {
	q = &Queue{sender: sender, log: log, clocks: clocks, volumes: map[string]*events{}}
	q.queue, err = clocks.NewQueue(perSecond, senders, q.send)
	return q, err
}

// Run sends Events until ctx ends.
func (q *Queue) Run(ctx context.Context) error { return q.queue.Run(ctx) }

// Close frees the queue's clock.
func (q *Queue) Close() error { return q.queue.Close() }

// Warn sends a warning to the pod of a volume after a delay, in place of an unsent Event on the same topic.
func (q *Queue) Warn(asked volume.Asked, topic string, w Warning, delay time.Duration) {
	q.put(asked, topic, Event{"Warning", w.Reason, w.Message}, delay)
}

// Note sends a note that is no warning to the pod of a volume. Its reason is its topic.
func (q *Queue) Note(asked volume.Asked, reason, message string) {
	q.put(asked, reason, Event{"Normal", reason, message}, 0)
}

// put queues an Event. A pod may have several volumes: the message begins with the name of the one that it is about.
func (q *Queue) put(asked volume.Asked, topic string, e Event, delay time.Duration) {
	if q.sender == nil {
		return
	}
	if name := volume.NameOf(asked); name != "" {
		e.Message = "volume " + name + ": " + e.Message
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	of := q.volumes[asked.ID]
	if of == nil {
		of = &events{byTopic: map[string]*unsent{}}
		q.volumes[asked.ID] = of
	}
	u := &unsent{Event: e}
	u.delay(q.clocks.Now(), delay)
	of.pod, of.byTopic[topic] = asked.Pod(), u
	q.schedule(asked.ID, of)
}

// schedule schedules the first Event of a volume. q.mu must be held.
func (q *Queue) schedule(id string, of *events) {
	var first time.Time
	for _, u := range of.byTopic {
		if !u.sending && (first.IsZero() || u.dueAt.Before(first)) {
			first = u.dueAt
		}
	}
	if !first.IsZero() {
		q.queue.Set(id, renew.Entry{At: first})
	}
}

// Withdraw drops the unsent Event on a topic, if there is one. One that is being sent is not tried again.
func (q *Queue) Withdraw(id, topic string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if of := q.volumes[id]; of != nil {
		delete(of.byTopic, topic)
	}
}

// Forget drops all Events of a volume.
func (q *Queue) Forget(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.volumes, id)
	q.queue.Remove(id)
}

// send sends the Events of a volume that are due.
func (q *Queue) send(ctx context.Context, id string) {
	for {
		pod, topic, u := q.next(id)
		if u == nil {
			return
		}
		sending, cancel := context.WithTimeout(ctx, timeout)
		err := q.sender.Send(sending, pod, u.Event)
		cancel()
		if err != nil && ctx.Err() != nil { // The driver stops.
			return
		}
		if err != nil {
			q.log.Warn("an Event was not sent", "pod", pod.Namespace+"/"+pod.Name, "error", err)
		}
		q.done(id, topic, u, err)
	}
}

// next returns an Event of the volume that is due, and marks it as being sent. If there is none it returns nil, and
// schedules the first one that will be due.
func (q *Queue) next(id string) (pod signer.Pod, topic string, u *unsent) {
	q.mu.Lock()
	defer q.mu.Unlock()
	of := q.volumes[id]
	if of == nil {
		return signer.Pod{}, "", nil
	}
	now := q.clocks.Now()
	for _, topic := range slices.Sorted(maps.Keys(of.byTopic)) {
		if u := of.byTopic[topic]; !u.sending && u.due(now) {
			u.sending = true
			return of.pod, topic, u
		}
	}
	q.schedule(id, of)
	return signer.Pod{}, "", nil
}

// done removes an Event that was sent, and queues it again if it could not be, unless it was withdrawn or replaced
// meanwhile.
func (q *Queue) done(id, topic string, u *unsent, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	of := q.volumes[id]
	if of == nil || of.byTopic[topic] != u {
		return
	}
	if err != nil {
		u.sending = false
		u.delay(q.clocks.Now(), retryDelay)
		return
	}
	delete(of.byTopic, topic)
	if len(of.byTopic) == 0 {
		delete(q.volumes, id)
	}
}
