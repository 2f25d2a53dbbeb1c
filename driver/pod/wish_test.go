package pod

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer"
)

// One list of one pod's metadata brings what its annotation says. Another pod of the name says nothing.
func TestAnAnnotationThatIsRead(t *testing.T) {
	for name, row := range map[string]struct {
		uid, annotation string
		status          int
		at              time.Time
		invalid, err    string
	}{
		"a time":           {"7d4f", `"csi.mayfly.dev/renew-at":"2026-01-31T12:00:00Z"`, http.StatusOK, time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC), "", ""},
		"none":             {"7d4f", `"other":"2026-01-31T12:00:00Z"`, http.StatusOK, time.Time{}, "", ""},
		"no time":          {"7d4f", `"csi.mayfly.dev/renew-at":"now"`, http.StatusOK, time.Time{}, `annotation csi.mayfly.dev/renew-at is "now", which is not a time`, ""},
		"of another pod":   {"9e1c", `"csi.mayfly.dev/renew-at":"2026-01-31T12:00:00Z"`, http.StatusOK, time.Time{}, "", ""},
		"a right is amiss": {"7d4f", "", http.StatusForbidden, time.Time{}, "", "read pod shop/web-0: "},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				q := r.URL.Query()
				if r.URL.Path != "/api/v1/namespaces/shop/pods" || q.Get("fieldSelector") != "metadata.name=web-0" || q.Get("resourceVersion") != "0" {
					t.Errorf("asked for %s", r.URL)
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(row.status)
				_, _ = w.Write([]byte(`{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{},"items":[` +
					`{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"web-0","uid":"` + row.uid + `","annotations":{` + row.annotation + `}}}]}`))
			}))
			defer server.Close()
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			reader, err := New(&rest.Config{Host: server.URL, Transport: transport}, "node-a")
			if err != nil {
				t.Fatal(err)
			}
			at, invalid, err := reader.RenewAt(t.Context(), signer.Pod{Namespace: "shop", Name: "web-0", UID: "7d4f"})
			says := func(err error, want string) bool {
				return (err == nil) == (want == "") && (err == nil || strings.HasPrefix(err.Error(), want))
			}
			if !at.Equal(row.at) || !says(invalid, row.invalid) || !says(err, row.err) {
				t.Errorf("%s, %v, %v", at, invalid, err)
			}
		})
	}
}
