package cluster

import (
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// After an API server was away for long, requests are decided soon.
func TestRetries(t *testing.T) {
	retries, last := retries(), time.Duration(0)
	for range 100 {
		next := retries.When(reconcile.Request{})
		if next < last || next > 10*time.Second {
			t.Fatalf("%s, after %s", next, last)
		}
		last = next
	}
	if last != 10*time.Second {
		t.Error(last)
	}
}

// A namespace with many requests holds up no other.
func TestNamespacesByTurns(t *testing.T) {
	queue := newQueue("test", retries())
	defer queue.ShutDown()
	request := func(namespace, name string) reconcile.Request {
		return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}}
	}
	for i := range 100 {
		queue.Add(request("many", fmt.Sprint(i)))
	}
	queue.Add(request("few", "a"))
	queue.Add(request("few", "b"))
	var got []string
	for queue.Len() > 0 {
		one, _ := queue.Get()
		queue.Done(one)
		got = append(got, one.String())
	}
	want := "[many/0 few/a many/1 few/b many/2 many/3]"
	if first := fmt.Sprint(got[:6]); first != want || len(got) != 102 {
		t.Errorf("%s of %d, want %s", first, len(got), want)
	}
}
