package event_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/spec"
	"github.com/mayfly-csi/mayfly/test/alarm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sent is a sender that keeps what it sends.
type sent struct {
	mu    sync.Mutex
	fails error
	all   []string
	tries chan struct{}
}

func (s *sent) Send(_ context.Context, pod signer.Pod, e event.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.tries <- struct{}{} }()
	if s.fails != nil {
		return s.fails
	}
	s.all = append(s.all, pod.Name+" "+e.Type+" "+e.Reason+": "+e.Message)
	return nil
}

// run starts a queue that ends with the test.
func run(t *testing.T, s event.Sender) *event.Queue {
	t.Helper()
	q, err := event.NewQueue(s, renew.Clocks{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return q
}

// asked is what a pod's volume tls asks for.
func asked(id, pod string) volume.Asked {
	return volume.Asked{
		ID: id, Target: "/var/lib/kubelet/pods/1/volumes/kubernetes.io~csi/tls/mount",
		Asked: spec.Asked{Attributes: map[string]string{"csi.storage.k8s.io/pod.name": pod}},
	}
}

func (s *sent) next(t *testing.T) {
	t.Helper()
	select {
	case <-s.tries:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was sent")
	}
}

// A newer warning about the same takes the place of an unsent one; one that was withdrawn, or is of a volume that is
// gone, is not sent.
func TestWhatIsSent(t *testing.T) {
	s := &sent{tries: make(chan struct{}, 10)}
	q := run(t, s)
	a, b := asked("1", "a"), asked("2", "b")
	q.Warn(a, "x", event.Warning{Reason: "X", Message: "old"}, time.Hour)
	q.Warn(a, "y", event.Warning{Reason: "Y", Message: "withdrawn"}, time.Hour)
	q.Warn(b, "x", event.Warning{Reason: "X", Message: "of a volume that is gone"}, time.Hour)
	q.Withdraw("1", "y")
	q.Withdraw("3", "y")
	q.Forget("2")
	q.Warn(a, "x", event.Warning{Reason: "X", Message: "new"}, 0)
	s.next(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) != 1 || s.all[0] != "a Warning X: volume tls: new" {
		t.Errorf("sent: %q", s.all)
	}
}

// Each Event of a volume has a time of its own: one that is due now is not held up by later ones, nor takes them along.
func TestEachEventHasItsTime(t *testing.T) {
	s := &sent{tries: make(chan struct{}, 10)}
	q := run(t, s)
	for _, id := range []string{"1", "2", "3"} {
		v := asked(id, "a")
		for hours := range 8 {
			topic, delay := strconv.Itoa(hours), time.Duration(1+hours)*time.Hour
			q.Warn(v, topic, event.Warning{Reason: "Later"}, delay)
		}
		q.Note(v, "Now", "at once")
		q.Warn(v, "latest", event.Warning{Reason: "Latest"}, 9*time.Hour)
		s.next(t)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if want := slices.Repeat([]string{"a Normal Now: volume tls: at once"}, 3); !slices.Equal(s.all, want) {
		t.Errorf("sent: %q, want %q", s.all, want)
	}
}

// What can't be sent is not lost, and a newer warning about the same wins.
func TestWhatCantBeSent(t *testing.T) {
	s := &sent{tries: make(chan struct{}, 10), fails: errors.New("no")}
	q := run(t, s)
	v := asked("1", "a")
	q.Warn(v, "x", event.Warning{Reason: "X", Message: "old"}, 0)
	s.next(t)
	s.mu.Lock()
	s.fails = nil
	s.mu.Unlock()
	q.Warn(v, "y", event.Warning{Reason: "Y", Message: "another"}, 0)
	s.next(t)
	s.mu.Lock()
	one := len(s.all)
	s.mu.Unlock()
	if one == 1 { // The first one was put back, with a delay, or is sent with the other.
		q.Warn(v, "x", event.Warning{Reason: "X", Message: "newer"}, 0)
	}
	s.next(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) != 2 {
		t.Errorf("sent: %q", s.all)
	}
}

// What is withdrawn, or of a volume that is gone, while it can't be sent, is not tried again: it is not true any more.
func TestWhatIsWithdrawnWhileItIsSent(t *testing.T) {
	for name, row := range map[string]struct {
		meanwhile func(q *event.Queue)
		want      []string
	}{
		"withdrawn": {func(q *event.Queue) { q.Withdraw("1", "x") }, []string{"old"}},
		"replaced":  {func(q *event.Queue) { q.Note(asked("1", "a"), "x", "new") }, []string{"old", "new"}},
		"the volume is gone, and comes back": {func(q *event.Queue) {
			q.Forget("1")
			q.Note(asked("1", "a"), "y", "another")
		}, []string{"old", "another"}},
		"nothing": {func(*event.Queue) {}, []string{"old", "old"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &slow{}
				clocks := renew.Clocks{New: func() (renew.Clock, error) { return alarm.New(), nil }}
				q, err := event.NewQueue(s, clocks, slog.New(slog.DiscardHandler))
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- q.Run(ctx) }()
				q.Note(asked("1", "a"), "x", "old")
				time.Sleep(5 * time.Second)
				row.meanwhile(q)
				time.Sleep(3 * time.Minute)
				cancel()
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				if !slices.Equal(s.all, row.want) {
					t.Errorf("sent %q, want %q", s.all, row.want)
				}
			})
		})
	}
}

// An Event does not wait for as long as the clock was ahead.
func TestEventsWhenTheClockIsSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, clock := &sent{tries: make(chan struct{}, 10)}, &alarm.Clock{}
		clocks := renew.Clocks{Wall: clock.Now, New: func() (renew.Clock, error) { return clock.New(), nil }}
		q, err := event.NewQueue(s, clocks, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- q.Run(ctx) }()
		q.Warn(asked("1", "a"), "x", event.Warning{Reason: "X"}, time.Minute)
		synctest.Wait()
		clock.Jump(-10 * time.Hour)
		time.Sleep(time.Minute)
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if len(s.all) != 1 {
			t.Errorf("sent: %q", s.all)
		}
	})
}

// slow is a sender that fails once after ten seconds, and keeps what it was to send.
type slow struct {
	mu  sync.Mutex
	all []string
}

func (s *slow) Send(_ context.Context, _ signer.Pod, e event.Event) error {
	s.mu.Lock()
	s.all = append(s.all, strings.TrimPrefix(e.Message, "volume tls: "))
	first := len(s.all) == 1
	s.mu.Unlock()
	if first {
		time.Sleep(10 * time.Second)
		return errors.New("no")
	}
	return nil
}
