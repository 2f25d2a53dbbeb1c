package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The states of the API server.
const (
	fine      = "fine"
	slow      = "slow"      // Each call takes up to 20 seconds.
	flaky     = "flaky"     // Calls are refused, delayed, or done with their answers lost; watches end.
	down      = "down"      // No call gets through.
	silent    = "silent"    // No call is ever answered.
	forbidden = "forbidden" // The right to create requests is missing.
)

// An apiServer plays the API server of the node, with CertificateRequests and the issuers that decide them. It stands
// in place of a connection, so that it can be used in a bubble.
type apiServer struct {
	seed uint64
	pki  *pki
	log  io.Writer

	mu       sync.Mutex
	state    string
	since    time.Time // When it was last in another state than fine.
	moods    map[string]mood
	requests map[string]*request // By name.
	calls    map[string]int      // By what is drawn for them.
	asked    map[string][]time.Time
	rash     string // What was asked too often.
	version  int
	dying    int // Calls until the node plugin is killed; 0: it is not.
	kill     func()
	dead     bool // The node plugin's process is gone: its calls do not get here.
}

// A request is a CertificateRequest with its watchers.
type request struct {
	cmapi.CertificateRequest
	decided bool
	watches map[chan string]bool // Each gets the type of an event, and closes when the request is gone.
}

// draw returns a number below n that depends on the seed, on what it is drawn for and on how often that was done: the
// calls of several goroutines come in any order.
func (s *apiServer) draw(what string, n int) int {
	s.calls[what]++
	h := fnv.New64a()
	fmt.Fprint(h, s.seed, what, s.calls[what])
	return int(h.Sum64() >> 33 % uint64(n))
}

// A fault is what becomes of a call.
type fault struct {
	delay  time.Duration
	refuse error // The call does not get through.
	status int   // It is refused with this status.
	lost   bool  // It is done, and its answer is lost.
}

// fault returns what becomes of a call. s.mu must be held.
func (s *apiServer) fault(call, of string) (f fault) {
	what := call + " " + of
	switch s.state {
	case slow:
		f.delay = time.Duration(s.draw(what, 20_000)) * time.Millisecond
	case down:
		f.refuse = errors.New("dial tcp 10.0.0.1:443: connect: connection refused")
	case silent:
		f.delay = 1000 * time.Hour
	case forbidden:
		if call == http.MethodPost {
			f.status = http.StatusForbidden
		}
	case flaky:
		switch s.draw(what, 10) {
		case 0:
			f.refuse = errors.New("read tcp 10.0.0.2:3000->10.0.0.1:443: read: connection reset by peer")
		case 1, 2:
			f.lost = true
		case 3:
			f.status = http.StatusInternalServerError
		case 4:
			f.status = http.StatusTooManyRequests
		case 5:
			f.delay = time.Duration(s.draw(what, 10_000)) * time.Millisecond
		case 6:
			if call == "WATCH" {
				f.status = http.StatusGone
			}
		}
	}
	return f
}

// RoundTrip implements [http.RoundTripper].
func (s *apiServer) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer func() { _ = r.Body.Close() }()
	}
	call, name := r.Method, path.Base(r.URL.Path)
	if field := r.URL.Query().Get("fieldSelector"); field != "" {
		call, name = "WATCH", strings.TrimPrefix(field, "metadata.name=")
	}
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	s.mu.Lock()
	s.step()
	of := name
	if call == http.MethodPost {
		of = ownerOf(body)
		if of != "" {
			s.count("calls to create a request of "+of, 40, 20*time.Second)
		}
	} else if i := strings.LastIndexByte(name, '-'); i > 0 {
		of = name[:i]
	}
	f, dead := s.fault(call, of), s.dead
	s.mu.Unlock()
	if dead {
		return nil, errors.New("the process is gone")
	}
	fmt.Fprintf(s.log, "%s %s of shop/%s : %+v\n", time.Now().Format(time.RFC3339Nano), call+" "+name, of, f)
	if err := sleep(r.Context(), f.delay); err != nil {
		return nil, err
	}
	if f.refuse != nil {
		return nil, f.refuse
	}
	if f.status != 0 {
		return answer(f.status, apiStatus(f.status)), nil
	}
	response := s.serve(r, call, name, body)
	s.mu.Lock()
	s.step()
	dead = s.dead
	s.mu.Unlock()
	if f.lost || dead {
		_ = response.Body.Close()
		return nil, io.ErrUnexpectedEOF
	}
	return response, nil
}

// count notes what is too much if it comes n times within some time. s.mu must be held.
func (s *apiServer) count(what string, n int, within time.Duration) {
	s.asked[what] = append(s.asked[what], time.Now())
	all := s.asked[what][max(0, len(s.asked[what])-n):]
	if s.asked[what] = all; len(all) == n && time.Since(all[0]) < within {
		s.rash = fmt.Sprintf("%d %s within %s", n, what, time.Since(all[0]))
	}
}

// step counts down to the node plugin's death. s.mu must be held.
func (s *apiServer) step() {
	if s.dying > 0 {
		if s.dying--; s.dying == 0 {
			s.dead = true
			s.kill()
		}
	}
}

// serve does a call.
func (s *apiServer) serve(r *http.Request, call, name string, body []byte) *http.Response {
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.HasSuffix(r.URL.Path, "/selfsubjectaccessreviews") {
		return answer(http.StatusCreated, map[string]any{"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
			"status": map[string]any{"allowed": s.state != forbidden}})
	}
	if call == http.MethodPost {
		return s.create(body)
	}
	req := s.requests[name]
	switch {
	case req == nil && call == "WATCH":
		return answer(http.StatusGone, apiStatus(http.StatusGone))
	case req == nil:
		return answer(http.StatusNotFound, apiStatus(http.StatusNotFound))
	case call == "WATCH":
		return s.watch(r.Context(), req)
	case call == http.MethodDelete:
		s.remove(name)
	}
	return answer(http.StatusOK, req.CertificateRequest)
}

func (s *apiServer) create(body []byte) *http.Response {
	req := &request{watches: map[chan string]bool{}}
	if err := json.Unmarshal(body, &req.CertificateRequest); err != nil {
		return answer(http.StatusBadRequest, apiStatus(http.StatusBadRequest))
	}
	if s.requests[req.Name] != nil {
		return answer(http.StatusConflict, apiStatus(http.StatusConflict))
	}
	if s.calls["create "+req.Name]++; s.calls["create "+req.Name] == 1 { // Not again after it was deleted.
		s.count("requests of "+req.OwnerReferences[0].Name, 12, 2*time.Minute)
	}
	s.version++
	req.UID, req.ResourceVersion = types.UID(fmt.Sprint(s.version)), fmt.Sprint(s.version)
	req.CreationTimestamp = metav1.Now()
	s.requests[req.Name] = req
	s.consider(req)
	return answer(http.StatusCreated, req.CertificateRequest)
}

// watch sends the changes of a request until it is gone, ctx ends or, in a flaky state, after some time.
func (s *apiServer) watch(ctx context.Context, req *request) *http.Response {
	events := make(chan string, 16)
	req.watches[events] = true
	if s.state == flaky {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(s.draw("watch "+req.Name, 20_000))*time.Millisecond)
		context.AfterFunc(ctx, cancel)
	}
	out, in := io.Pipe()
	context.AfterFunc(ctx, func() { _ = in.Close() })
	go func() {
		defer func() { _ = in.Close() }()
		for kind := range events {
			s.mu.Lock()
			text, _ := json.Marshal(map[string]any{"type": kind, "object": req.CertificateRequest})
			s.mu.Unlock()
			if _, err := in.Write(text); err != nil {
				break
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(req.watches, events)
	}()
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if req.watches[events] {
			delete(req.watches, events)
			close(events)
		}
	})
	return &http.Response{StatusCode: http.StatusOK, Body: out, Header: http.Header{"Content-Type": {"application/json"}}}
}

// changed tells the watchers of a request. s.mu must be held.
func (s *apiServer) changed(req *request, kind string) {
	s.version++
	req.ResourceVersion = fmt.Sprint(s.version)
	for events := range req.watches {
		events <- kind
	}
}

// remove deletes a request. s.mu must be held.
func (s *apiServer) remove(name string) {
	req := s.requests[name]
	delete(s.requests, name)
	s.changed(req, "DELETED")
	for events := range req.watches {
		delete(req.watches, events)
		close(events)
	}
}

// decide sets a condition of a request. s.mu must be held.
func (s *apiServer) decide(req *request, kind cmapi.CertificateRequestConditionType, reason, message string) {
	state := cmmeta.ConditionTrue
	if reason == cmapi.CertificateRequestReasonFailed {
		state = cmmeta.ConditionFalse
	}
	req.decided = true
	req.Status.Conditions = append(req.Status.Conditions,
		cmapi.CertificateRequestCondition{Type: kind, Status: state, Reason: reason, Message: message})
	s.changed(req, "MODIFIED")
}

// set changes the state of the API server.
func (s *apiServer) set(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != fine {
		s.since = time.Now()
	}
	s.state = state
}

// of returns the requests of a pod. s.mu must be held.
func (s *apiServer) of(uid string) (all []*request) {
	for _, req := range s.requests {
		if string(req.OwnerReferences[0].UID) == uid {
			all = append(all, req)
		}
	}
	return all
}

// collect deletes the requests of a pod that is gone, as Kubernetes' garbage collector does.
func (s *apiServer) collect(uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, req := range s.of(uid) {
		s.remove(req.Name)
	}
}

// ownerOf returns the name of the pod that owns an object in JSON.
func ownerOf(body []byte) string {
	var o metav1.PartialObjectMetadata
	if json.Unmarshal(body, &o) != nil || len(o.OwnerReferences) == 0 {
		return ""
	}
	return o.OwnerReferences[0].Name
}

func answer(code int, object any) *http.Response {
	text, _ := json.Marshal(object)
	header := http.Header{"Content-Type": {"application/json"}}
	if code == http.StatusTooManyRequests {
		header.Set("Retry-After", "1")
	}
	return &http.Response{StatusCode: code, Header: header, Body: io.NopCloser(bytes.NewReader(text))}
}

func apiStatus(code int) metav1.Status {
	reasons := map[int]metav1.StatusReason{
		http.StatusGone: metav1.StatusReasonExpired, http.StatusNotFound: metav1.StatusReasonNotFound,
		http.StatusConflict: metav1.StatusReasonAlreadyExists, http.StatusForbidden: metav1.StatusReasonForbidden,
		http.StatusTooManyRequests: metav1.StatusReasonTooManyRequests, http.StatusInternalServerError: metav1.StatusReasonInternalError,
	}
	return metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Code: int32(code), Reason: reasons[code], Message: http.StatusText(code)}
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
