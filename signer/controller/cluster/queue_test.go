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

// A namespace with many requests holds up no other, and a node with many in all namespaces no other node.
func TestNodesAndNamespacesByTurns(t *testing.T) {
	node := func(of reconcile.Request) string { return of.Name[:1] }
	queue := newQueue(node)("test", retries())
	defer queue.ShutDown()
	request := func(namespace, name string) reconcile.Request {
		return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}}
	}
	for i := range 100 {
		queue.Add(request("many", fmt.Sprint("a", i)))
	}
	queue.Add(request("few", "a0"))
	queue.Add(request("few", "a1"))
	queue.Add(request("many", "b0"))
	queue.Add(request("many", "b1"))
	var got []string
	for queue.Len() > 0 {
		one, _ := queue.Get()
		queue.Done(one)
		got = append(got, one.String())
	}
	want := "[many/a0 many/b0 few/a0 many/b1 many/a1 few/a1 many/a2 many/a3]"
	if first := fmt.Sprint(got[:8]); first != want || len(got) != 104 {
		t.Errorf("%s of %d, want %s", first, len(got), want)
	}
}
