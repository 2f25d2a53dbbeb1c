package cluster

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

type turn bool

// First implements [Turn].
func (t turn) First() bool { return bool(t) }

// Where another replica is first, a request comes a second later, however it is heard of; and once.
func TestWhoIsNotFirstWaits(t *testing.T) {
	for _, first := range []turn{true, false} {
		synctest.Test(t, func(t *testing.T) {
			queue, began := newQueue(func(reconcile.Request) string { return "" })("test", retries()), time.Now()
			defer queue.ShutDown()
			wait := func(client.Object) time.Duration { return Wait(first) }
			events := Delayed(wait, &handler.EnqueueRequestForObject{})
			pod := func(name string) client.Object {
				return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
			}
			events.Create(t.Context(), event.CreateEvent{Object: pod("a")}, queue)
			events.Update(t.Context(), event.UpdateEvent{ObjectOld: pod("a"), ObjectNew: pod("a")}, queue)
			events.Update(t.Context(), event.UpdateEvent{ObjectOld: pod("b"), ObjectNew: pod("b")}, queue)
			events.Delete(t.Context(), event.DeleteEvent{Object: pod("c")}, queue)
			var got []string
			for range 3 {
				one, _ := queue.Get()
				queue.Done(one)
				got = append(got, one.Name)
			}
			want := map[turn]time.Duration{true: 0, false: headStart}[first]
			if took := time.Since(began); took != want || queue.Len() > 0 {
				t.Errorf("first %v: %v after %s, and %d more", first, got, took, queue.Len())
			}
			if first && fmt.Sprint(got) != "[a b c]" {
				t.Error(got)
			}
		})
	}
}

// Who is not first handles one request at a time.
func TestFollowed(t *testing.T) {
	var followed Followed
	end := followed.Begin(turn(false))
	followed.Begin(turn(true))()
	if followed.mu.TryLock() {
		t.Error("two are handled at once")
	}
	end()
	followed.Begin(turn(false))()
}
