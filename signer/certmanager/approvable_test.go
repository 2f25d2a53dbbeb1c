package certmanager_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/certmanager"
)

// A denied request is watched for what says that another one would be approved. One that is gone can't say so any more.
func TestADeniedRequestThatMayBeApproved(t *testing.T) {
	for name, row := range map[string]struct {
		then   func(s *apiServer, send func(kind string, object any))
		mended bool
	}{
		"another one would be approved": {func(s *apiServer, send func(string, any)) {
			send("MODIFIED", s.with(cmapi.CertificateRequestConditionReady, cmapi.CertificateRequestReasonDenied))
			send("MODIFIED", s.with(signer.Approvable, "VerifiedByMayfly"))
		}, true},
		"it is deleted":   {func(s *apiServer, send func(string, any)) { send("DELETED", s.with("other", "")) }, true},
		"it stays denied": {func(s *apiServer, send func(string, any)) { send("MODIFIED", s.with("other", "")) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			watches, over := 0, make(chan struct{})
			defer close(over)
			s := &apiServer{t: t}
			s.watch = func(_ http.ResponseWriter, send func(kind string, object any)) {
				if watches++; watches == 1 {
					send("MODIFIED", s.with(cmapi.CertificateRequestConditionDenied, "NotAllowed"))
					return
				}
				row.then(s, send)
				<-over
			}
			backend := s.start()
			_, err := backend.Sign(t.Context(), request())
			var refused *signer.Error
			if !errors.As(err, &refused) || refused.Kind != signer.Denied || refused.Mended == nil {
				t.Fatalf("got %+v", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), map[bool]time.Duration{true: time.Minute, false: time.Second / 2}[row.mended])
			defer cancel()
			if err := refused.Mended(ctx, nil); (err == nil) != row.mended {
				t.Errorf("got %v", err)
			}
		})
	}
}

// After a restart, the object of an attempt says what became of it.
func TestWhatBecameOfAnAttempt(t *testing.T) {
	gone := func(w http.ResponseWriter, s *apiServer) {
		w.WriteHeader(http.StatusNotFound)
		s.send(w, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound})
	}
	for name, row := range map[string]struct {
		answer func(w http.ResponseWriter, s *apiServer)
		want   string
		mended bool
	}{
		"denied": {func(w http.ResponseWriter, s *apiServer) {
			s.send(w, s.with(cmapi.CertificateRequestConditionDenied, "NotAllowed"))
		}, "request denied: CertificateRequest /: NotAllowed: ", true},
		"undecided": {func(w http.ResponseWriter, s *apiServer) { s.send(w, s.approved()) }, "", false},
		"gone":      {gone, "", false},
		"away":      {func(w http.ResponseWriter, _ *apiServer) { w.WriteHeader(http.StatusServiceUnavailable) }, "signer unavailable: read CertificateRequest shop/web-a1: ", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := &apiServer{t: t}
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "/namespaces/shop/certificaterequests/web-a1") {
					t.Errorf("%s %s", r.Method, r.URL)
				}
				w.Header().Set("Content-Type", "application/json")
				row.answer(w, s)
			}))
			defer server.Close()
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			backend, err := certmanager.New(&rest.Config{Host: server.URL, Transport: transport})
			if err != nil {
				t.Fatal(err)
			}
			err = backend.Refused(t.Context(), request().Attempt)
			var refused *signer.Error
			if (err == nil) != (row.want == "") || err != nil && !strings.HasPrefix(err.Error(), row.want) || errors.As(err, &refused) && (refused.Mended != nil) != row.mended {
				t.Errorf("got %v, want %s", err, row.want)
			}
		})
	}
}
