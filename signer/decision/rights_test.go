package decision_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer/decision"
)

// A reviewer answers SelfSubjectAccessReviews, in place of a connection.
type reviewer struct {
	t *testing.T

	mu    sync.Mutex
	asked map[string]int // By namespace.
	may   map[string]bool
	away  bool
}

func (r *reviewer) RoundTrip(request *http.Request) (*http.Response, error) {
	var review authorizationv1.SelfSubjectAccessReview
	if err := json.NewDecoder(request.Body).Decode(&review); err != nil {
		r.t.Error(err)
	}
	right := *review.Spec.ResourceAttributes
	if got := right.Verb + " " + right.Resource + "." + right.Group; got != "create certificaterequests.cert-manager.io" {
		r.t.Errorf("asked for the right to %s", got)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked[right.Namespace]++
	review.Status.Allowed = r.may[right.Namespace]
	answer := httptest.NewRecorder()
	answer.Header().Set("Content-Type", "application/json")
	if r.away {
		answer.WriteHeader(http.StatusServiceUnavailable)
	}
	if err := json.NewEncoder(answer).Encode(review); err != nil {
		r.t.Error(err)
	}
	return answer.Result(), nil
}

func (r *reviewer) grant(namespace string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.may[namespace] = true
}

func TestAwaitARight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reviewer{t: t, asked: map[string]int{}, may: map[string]bool{"granted": true}}
		rights, err := decision.NewRights(&rest.Config{Host: "http://api", Transport: r}, "cert-manager.io", "certificaterequests")
		if err != nil {
			t.Fatal(err)
		}
		if err := rights.Await(t.Context(), "granted"); !errors.Is(err, decision.ErrGranted) {
			t.Errorf("a right that is granted: %v", err)
		}
		const waiters = 50
		begin, done := time.Now(), make(chan error, waiters)
		for i := range waiters {
			go func() {
				time.Sleep(time.Duration(i) * 100 * time.Millisecond)
				done <- rights.Await(t.Context(), "shop")
			}()
		}
		time.Sleep(2 * time.Minute)
		r.mu.Lock()
		asked := r.asked["shop"]
		r.mu.Unlock()
		if asked < 30 || asked > 61 {
			t.Errorf("asked %d times in two minutes", asked)
		}
		r.grant("shop")
		for range waiters {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(begin) - 2*time.Minute; took > 5*time.Second {
			t.Errorf("known after %s", took)
		}
		ended, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := rights.Await(ended, "bank"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a wait that ends: %v", err)
		}
		r.mu.Lock()
		r.away = true
		r.mu.Unlock()
		if err := rights.Await(t.Context(), "mail"); err == nil {
			t.Error("the API server is away")
		}
	})
}
