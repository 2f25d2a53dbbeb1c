package certmanager_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/certmanager"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An apiServer plays one CertificateRequest with the faults that a real API server shows too seldom for a test:
// the suite of signertest and all else runs against a real one, in test/cluster.
type apiServer struct {
	t     *testing.T
	watch func(w http.ResponseWriter, send func(kind string, object any)) // What a watch sees.

	mu        sync.Mutex
	object    cmapi.CertificateRequest
	calls     []string
	forbidden bool // To create requests.
}

// start is a signer on the API server.
func (s *apiServer) start() *certmanager.Signer {
	s.t.Helper()
	server := httptest.NewServer(s)
	transport := &http.Transport{}
	s.t.Cleanup(func() {
		transport.CloseIdleConnections()
		server.Close()
	})
	backend, err := certmanager.New(&rest.Config{Host: server.URL, Transport: transport})
	if err != nil {
		s.t.Fatal(err)
	}
	return backend
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	watching := r.URL.Query().Get("watch") != ""
	s.mu.Lock()
	call := r.Method
	if watching {
		call = "WATCH"
	}
	s.calls = append(s.calls, call)
	if r.Method == http.MethodPost && s.forbidden {
		s.mu.Unlock()
		w.WriteHeader(http.StatusForbidden)
		s.send(w, metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
			Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden,
		})
		return
	}
	if r.Method == http.MethodPost {
		if err := json.NewDecoder(r.Body).Decode(&s.object); err != nil {
			s.t.Error(err)
		}
		s.object.UID, s.object.ResourceVersion, s.object.CreationTimestamp = "uid", "7", metav1.Now()
	}
	object := s.object
	s.mu.Unlock()
	if !watching {
		s.send(w, object)
		return
	}
	if got := r.URL.Query().Get("resourceVersion") + " " + r.URL.Query().Get("fieldSelector"); got != "7 metadata.name="+object.Name {
		s.t.Errorf("watched from %s", got)
	}
	s.watch(w, func(kind string, object any) {
		s.send(w, map[string]any{"type": kind, "object": object})
	})
}

func (s *apiServer) send(w http.ResponseWriter, object any) {
	if err := json.NewEncoder(w).Encode(object); err != nil {
		s.t.Error(err)
	}
	w.(http.Flusher).Flush()
}

// with is the request with a condition more.
func (s *apiServer) with(condition cmapi.CertificateRequestConditionType, reason string) cmapi.CertificateRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.object.Status.Conditions = append(s.object.Status.Conditions, cmapi.CertificateRequestCondition{Type: condition, Status: cmmeta.ConditionTrue, Reason: reason})
	if condition == cmapi.CertificateRequestConditionReady {
		s.object.Status.Certificate = []byte("the chain")
	}
	return s.object
}

// approved and issued are what an approver and an issuer make of the request.
func (s *apiServer) approved() cmapi.CertificateRequest {
	return s.with(cmapi.CertificateRequestConditionApproved, "test")
}

func (s *apiServer) issued() cmapi.CertificateRequest {
	return s.with(cmapi.CertificateRequestConditionReady, cmapi.CertificateRequestReasonIssued)
}

func request() signer.Request {
	return signer.Request{
		Attempt: signer.Attempt{ID: "a1", Pod: signer.Pod{Namespace: "shop", Name: "web", UID: "1"}},
		CSR:     []byte("csr"), Duration: time.Hour, Issuer: signer.Issuer{Name: "ca", Kind: "Issuer", Group: "cert-manager.io"},
	}
}

func TestWatchesThatEnd(t *testing.T) {
	expired := metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: http.StatusGone, Reason: metav1.StatusReasonExpired,
	}
	for name, row := range map[string]struct {
		watch func(s *apiServer, w http.ResponseWriter, send func(string, any))
		calls string
	}{
		"with the decision, after other changes": {func(s *apiServer, _ http.ResponseWriter, send func(string, any)) {
			send("MODIFIED", s.approved())
			send("MODIFIED", s.issued())
		}, "POST WATCH"},
		"closed after a change": {func(s *apiServer, _ http.ResponseWriter, send func(string, any)) {
			send("MODIFIED", s.approved())
			s.issued()
		}, "POST WATCH GET"},
		"too old, said by an event": {func(s *apiServer, _ http.ResponseWriter, send func(string, any)) {
			s.issued()
			send("ERROR", expired)
		}, "POST WATCH GET"},
		"too old, said by the status": {func(s *apiServer, w http.ResponseWriter, _ func(string, any)) {
			s.issued()
			w.WriteHeader(http.StatusGone)
			s.send(w, expired)
		}, "POST WATCH GET"},
		"with garbage": {func(s *apiServer, w http.ResponseWriter, _ func(string, any)) {
			s.issued()
			_, _ = w.Write([]byte("{\"type\":\"MODIFIED\",\"object\":"))
		}, "POST WATCH GET"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &apiServer{t: t}
			s.watch = func(w http.ResponseWriter, send func(string, any)) { row.watch(s, w, send) }
			got, err := s.start().Sign(t.Context(), request())
			if err != nil || string(got.Chain) != "the chain" {
				t.Errorf("%+v, %v", got, err)
			}
			if calls := strings.Join(s.calls, " "); calls != row.calls {
				t.Errorf("calls: %s, want %s", calls, row.calls)
			}
		})
	}
}

// What cert-manager's controllers and approvers write decides, a denial before all else.
func TestDecide(t *testing.T) {
	const (
		approved = cmapi.CertificateRequestConditionApproved
		denied   = cmapi.CertificateRequestConditionDenied
		invalid  = cmapi.CertificateRequestConditionInvalidRequest
		ready    = cmapi.CertificateRequestConditionReady
	)
	is := func(c cmapi.CertificateRequestConditionType, status cmmeta.ConditionStatus, reason string) cmapi.CertificateRequestCondition {
		return cmapi.CertificateRequestCondition{Type: c, Status: status, Reason: reason}
	}
	issued := is(ready, cmmeta.ConditionTrue, cmapi.CertificateRequestReasonIssued)
	for name, row := range map[string]struct {
		chain      string
		conditions []cmapi.CertificateRequestCondition
		want       string // Empty: undecided.
	}{
		"new":                      {"", nil, ""},
		"approved":                 {"", []cmapi.CertificateRequestCondition{is(approved, cmmeta.ConditionTrue, "")}, ""},
		"pending":                  {"", []cmapi.CertificateRequestCondition{is(ready, cmmeta.ConditionFalse, cmapi.CertificateRequestReasonPending)}, ""},
		"not denied":               {"", []cmapi.CertificateRequestCondition{is(denied, cmmeta.ConditionFalse, "")}, ""},
		"ready without a chain":    {"", []cmapi.CertificateRequestCondition{issued}, ""},
		"issued":                   {"chain", []cmapi.CertificateRequestCondition{issued}, "<nil>"},
		"denied":                   {"", []cmapi.CertificateRequestCondition{is(denied, cmmeta.ConditionTrue, "no")}, "request denied"},
		"denied and issued":        {"chain", []cmapi.CertificateRequestCondition{issued, is(denied, cmmeta.ConditionTrue, "no")}, "request denied"},
		"denied, by its readiness": {"", []cmapi.CertificateRequestCondition{is(ready, cmmeta.ConditionFalse, cmapi.CertificateRequestReasonDenied)}, "request denied"},
		"invalid":                  {"", []cmapi.CertificateRequestCondition{is(invalid, cmmeta.ConditionTrue, "no")}, "request invalid"},
		"failed":                   {"", []cmapi.CertificateRequestCondition{is(ready, cmmeta.ConditionFalse, cmapi.CertificateRequestReasonFailed)}, "signing failed"},
	} {
		t.Run(name, func(t *testing.T) {
			cr := &certmanager.CertificateRequest{}
			text, err := json.Marshal(cmapi.CertificateRequest{Status: cmapi.CertificateRequestStatus{Conditions: row.conditions, Certificate: []byte(row.chain)}})
			if err = errors.Join(err, json.Unmarshal(text, cr)); err != nil {
				t.Fatal(err)
			}
			got, err, decided := certmanager.Decide(cr)
			if decided != (row.want != "") || !strings.HasPrefix(fmt.Sprint(err), row.want) {
				t.Errorf("%v, decided %v, want %q", err, decided, row.want)
			}
			if want := map[bool]string{true: row.chain}[row.want == "<nil>"]; string(got.Chain) != want {
				t.Errorf("chain %q", got.Chain)
			}
		})
	}
}

func TestARequestThatIsDeletedOrReplaced(t *testing.T) {
	for name, row := range map[string]struct {
		kind   string
		change func(*cmapi.CertificateRequest)
		want   string
	}{
		"deleted":         {"DELETED", func(*cmapi.CertificateRequest) {}, "was deleted before it was signed"},
		"replaced":        {"MODIFIED", func(cr *cmapi.CertificateRequest) { cr.UID = "other" }, "was replaced"},
		"another issuer":  {"MODIFIED", func(cr *cmapi.CertificateRequest) { cr.Spec.IssuerRef.Name = "other" }, "its spec was changed"},
		"a CA's":          {"MODIFIED", func(cr *cmapi.CertificateRequest) { cr.Spec.IsCA = true }, "its spec was changed"},
		"another request": {"MODIFIED", func(cr *cmapi.CertificateRequest) { cr.Spec.Request = []byte("another") }, "its spec was changed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &apiServer{t: t}
			s.watch = func(_ http.ResponseWriter, send func(string, any)) {
				cr := s.issued()
				row.change(&cr)
				send(row.kind, cr)
			}
			_, err := s.start().Sign(t.Context(), request())
			if signer.KindOf(err) != signer.Failed || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v", err)
			}
		})
	}
}

// The right to create requests is taken away while one is under way: the attempt goes on with the request that it has.
func TestARequestThatCantBeCreatedAgain(t *testing.T) {
	s := &apiServer{t: t}
	s.watch = func(_ http.ResponseWriter, send func(string, any)) { send("MODIFIED", s.issued()) }
	backend, req := s.start(), request()
	if _, err := backend.Sign(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.forbidden, s.calls = true, nil
	s.mu.Unlock()
	got, err := backend.Sign(t.Context(), req)
	if calls := strings.Join(s.calls, " "); err != nil || string(got.Chain) != "the chain" || calls != "POST GET" {
		t.Errorf("%q, %v after %s", got.Chain, err, calls)
	}
	req.CSR = []byte("another")
	if _, err := backend.Sign(t.Context(), req); signer.KindOf(err) != signer.Denied {
		t.Errorf("a request that is not there: %v", err)
	}
}

func TestAnAPIServerThatIsAway(t *testing.T) {
	s, err := certmanager.New(&rest.Config{Host: "http://127.0.0.1:1"}) // Nobody listens on this port.
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Sign(t.Context(), request())
	if signer.KindOf(err) != signer.Unavailable || !strings.HasPrefix(err.Error(), "signer unavailable: create CertificateRequest shop/web-a1: ") {
		t.Errorf("create: %v", err)
	}
	err = s.Forget(t.Context(), request().Attempt)
	var explained *signer.Error
	if !errors.As(err, &explained) || explained.Kind != signer.Unavailable || !strings.HasPrefix(explained.Reason, "delete CertificateRequest shop/web-a1: ") {
		t.Errorf("delete: %v", err)
	}
}

// The request's text is that of cert-manager's type.
func TestTheTextOfARequest(t *testing.T) {
	req := request()
	req.Annotations, req.IsCA, req.Usages = map[string]string{"a": "b"}, true, []signer.Usage{signer.ServerAuth}
	text, err := json.Marshal(certmanager.Object(req))
	if err != nil {
		t.Fatal(err)
	}
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	var got cmapi.CertificateRequest
	if err := strict.Decode(&got); err != nil {
		t.Fatal(err)
	}
	want := cmapi.CertificateRequest{
		TypeMeta: metav1.TypeMeta{APIVersion: cmapi.SchemeGroupVersion.String(), Kind: cmapi.CertificateRequestKind},
		ObjectMeta: metav1.ObjectMeta{
			Name: "web-a1", Namespace: "shop", Annotations: req.Annotations,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "web", UID: "1"}},
		},
		Spec: cmapi.CertificateRequestSpec{
			Request:   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: req.CSR}),
			IssuerRef: cmmeta.IssuerReference{Name: "ca", Kind: "Issuer", Group: "cert-manager.io"},
			Duration:  &metav1.Duration{Duration: time.Hour}, IsCA: true, Usages: []cmapi.KeyUsage{cmapi.UsageServerAuth},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestACAOfTheControllerIsNotCertManagers(t *testing.T) {
	api := &apiServer{t: t}
	req := request()
	req.Issuer = signer.Issuer{Name: "mayfly-ca", Kind: signer.CAKind, Group: signer.CAGroup}
	_, err := api.start().Sign(t.Context(), req)
	if signer.KindOf(err) != signer.Invalid || !strings.Contains(err.Error(), "CA mayfly-ca is a CA of mayfly-controller") || len(api.calls) > 0 {
		t.Errorf("%v after %v", err, api.calls)
	}
}
