package decision_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/decision"
)

// A reviewer answers SelfSubjectAccessReviews, in place of a connection.
type reviewer struct {
	t *testing.T

	mu    sync.Mutex
	asked map[string]int // By namespace.
	may   map[string]bool
	away  bool

	bearers []string // In the order of the questions.
	slow    bool     // Each answer takes a second.
}

// toAsk is the right that is waited for.
func toAsk() decision.Right {
	return decision.Right{Verb: "create", Group: "cert-manager.io", Resource: "certificaterequests"}
}

func (r *reviewer) RoundTrip(request *http.Request) (*http.Response, error) {
	var review authorizationv1.SelfSubjectAccessReview
	if err := json.NewDecoder(request.Body).Decode(&review); err != nil {
		r.t.Error(err)
	}
	if r.slow {
		select {
		case <-time.After(time.Second):
		case <-request.Context().Done():
			return nil, request.Context().Err()
		}
	}
	if got := review.APIVersion + " " + review.Kind; got != "authorization.k8s.io/v1 SelfSubjectAccessReview" {
		r.t.Errorf("asked by %s", got)
	}
	asked := *review.Spec.ResourceAttributes
	r.mu.Lock()
	defer r.mu.Unlock()
	where := asked.Namespace
	if got := (decision.Right{Verb: asked.Verb, Group: asked.Group, Resource: asked.Resource}); got != toAsk() {
		where += " " + got.Verb
	}
	r.asked[where]++
	r.bearers = append(r.bearers, request.Header.Get("Authorization"))
	review.Status.Allowed = r.may[where]
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
		rights, err := decision.NewRights(&rest.Config{Host: "http://api", Transport: r}, toAsk())
		if err != nil {
			t.Fatal(err)
		}
		if err := rights.Await(t.Context(), decision.Account{Namespace: "granted"}, nil); !errors.Is(err, decision.ErrGranted) {
			t.Errorf("a right that is granted: %v", err)
		}
		const waiters = 50
		begin, done := time.Now(), make(chan error, waiters)
		for i := range waiters {
			go func() {
				time.Sleep(time.Duration(i) * 100 * time.Millisecond)
				done <- rights.Await(t.Context(), decision.Account{Namespace: "shop"}, nil)
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
		if err := rights.Await(ended, decision.Account{Namespace: "bank"}, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a wait that ends: %v", err)
		}
		r.mu.Lock()
		r.away = true
		r.mu.Unlock()
		if err := rights.Await(t.Context(), decision.Account{Namespace: "mail"}, nil); err == nil {
			t.Error("the API server is away")
		}
	})
}

// A pod's right is asked for with the token that it has then; all pods of a service account share the questions.
func TestAwaitARightOfAPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reviewer{t: t, asked: map[string]int{}, may: map[string]bool{}}
		rights, err := decision.NewRights(&rest.Config{Host: "http://api", Transport: r, BearerToken: "the node plugin's"}, toAsk())
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		token := func() signer.Token {
			switch age := time.Since(begin); {
			case age < time.Minute:
				return "first"
			case age < 2*time.Minute: // It has expired, and the kubelet has brought no other yet.
				return ""
			}
			return "second"
		}
		done := make(chan error, 20)
		for range cap(done) {
			go func() { done <- rights.Await(t.Context(), decision.Account{Namespace: "shop", Name: "web"}, token) }()
		}
		time.Sleep(3 * time.Minute)
		r.grant("shop")
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(begin) - 3*time.Minute; took > 5*time.Second {
			t.Errorf("known after %s", took)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if got := slices.Compact(r.bearers); len(r.bearers) > 62 || !slices.Equal(got, []string{"Bearer first", "Bearer second"}) {
			t.Errorf("%d questions, by %q", len(r.bearers), got)
		}
	})
}

// Of several rights all are needed.
func TestAwaitSeveralRights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reviewer{t: t, asked: map[string]int{}, may: map[string]bool{"shop": true}}
		rights, err := decision.NewRights(&rest.Config{Host: "http://api", Transport: r}, toAsk(), decision.Right{Verb: "get", Resource: "nodes"})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- rights.Await(t.Context(), decision.Account{Namespace: "shop"}, nil) }()
		time.Sleep(time.Minute)
		r.grant("shop get")
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// The end of one wait ends no other, which may have shared its question.
func TestAWaitForARightThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reviewer{t: t, asked: map[string]int{}, may: map[string]bool{}, slow: true}
		rights, err := decision.NewRights(&rest.Config{Host: "http://api", Transport: r}, toAsk())
		if err != nil {
			t.Fatal(err)
		}
		ends, cancel := context.WithCancel(t.Context())
		time.AfterFunc(500*time.Millisecond, cancel)
		done := make(chan error)
		go func() { done <- rights.Await(ends, decision.Account{Namespace: "shop"}, nil) }()
		synctest.Wait()
		goesOn := make(chan error)
		go func() { goesOn <- rights.Await(t.Context(), decision.Account{Namespace: "shop"}, nil) }()
		if err := <-done; err == nil {
			t.Error("the wait has not ended")
		}
		time.Sleep(10 * time.Second)
		r.grant("shop")
		if err := <-goesOn; err != nil {
			t.Error(err)
		}
	})
}
