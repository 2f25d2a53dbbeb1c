package proof

import (
	"testing"
	"time"

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
