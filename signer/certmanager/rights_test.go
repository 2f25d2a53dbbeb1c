package certmanager_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/certmanager"
	"github.com/mayfly-csi/mayfly/signer/decision"
)

// A right that the node plugin or the pod's service account lacks may be granted later; what the API server refuses for
// another reason may not.
func TestWhatMayBeGranted(t *testing.T) {
	for name, row := range map[string]struct {
		status int
		reason metav1.StatusReason
		token  signer.Token
		mended bool
	}{
		"a right of the node plugin": {http.StatusForbidden, metav1.StatusReasonForbidden, "", true},
		"a right of the pod":         {http.StatusForbidden, metav1.StatusReasonForbidden, "token", true},
		"an invalid request":         {http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			s, bearer := &apiServer{t: t}, ""
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				if strings.HasSuffix(r.URL.Path, "/selfsubjectaccessreviews") {
					bearer = r.Header.Get("Authorization")
					_, _ = w.Write([]byte(`{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","status":{"allowed":true}}`))
					return
				}
				w.WriteHeader(row.status)
				s.send(w, metav1.Status{
					TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(row.status), Reason: row.reason,
				})
			}))
			defer server.Close()
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			backend, err := certmanager.New(&rest.Config{Host: server.URL, Transport: transport})
			if err != nil {
				t.Fatal(err)
			}
			req := request()
			req.Token, req.Attempt.Pod.ServiceAccount = row.token, "web"
			_, err = backend.Sign(t.Context(), req)
			var refused *signer.Error
			if !errors.As(err, &refused) || !refused.Kind.Ends() || (refused.Mended != nil) != row.mended {
				t.Fatalf("got %+v", err)
			}
			if row.mended { // It is granted: an admission policy has refused the request.
				current := func() signer.Token { return row.token + "-2" }
				if err := refused.Mended(t.Context(), current); !errors.Is(err, decision.ErrGranted) {
					t.Errorf("a right that is granted is waited for: %v", err)
				}
				if want := map[bool]string{true: "Bearer token-2"}[row.token != ""]; bearer != want {
					t.Errorf("asked as %q, want %q", bearer, want)
				}
			}
		})
	}
}
