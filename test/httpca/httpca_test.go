package httpca_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/local"
	"github.com/mayfly-csi/mayfly/signer/signertest"
	"github.com/mayfly-csi/mayfly/test/httpca"
)

func TestSigner(t *testing.T) {
	ca, err := local.Open(filepath.Join(t.TempDir(), "ca"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		csr, _ := io.ReadAll(r.Body)
		duration, _ := time.ParseDuration(r.FormValue("duration"))
		req := signer.Request{CSR: csr, Duration: duration}
		for _, usage := range r.Form["usage"] {
			req.Usages = append(req.Usages, signer.Usage(usage))
		}
		issued, err := ca.Sign(r.Context(), req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = w.Write(issued.Chain)
	}))
	defer server.Close()
	signertest.Run(t, signertest.Backend{
		Signer: &httpca.Signer{URL: server.URL, Client: server.Client()},
		Pod: func(*testing.T) signer.Pod {
			return signer.Pod{Namespace: "default", Name: "web", UID: "1", ServiceAccount: "default"}
		},
	})
}

func TestRefusals(t *testing.T) {
	for status, want := range map[int]signer.Kind{
		http.StatusForbidden: signer.Denied, http.StatusServiceUnavailable: signer.Unavailable, http.StatusNotFound: signer.Invalid,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		_, err := (&httpca.Signer{URL: server.URL, Client: server.Client()}).Sign(t.Context(), signer.Request{})
		if got := signer.KindOf(err); got != want {
			t.Errorf("status %d: %s, want %s", status, got, want)
		}
		server.Close()
	}
}

// CONTRIBUTING.md shows the whole signer, of less than 100 lines.
func TestContributingShowsTheSigner(t *testing.T) {
	document, err := os.ReadFile("../../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("httpca.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(document), "```go\n"+string(source)+"```") || strings.Count(string(source), "\n") >= 100 {
		t.Error("CONTRIBUTING.md shows another signer, or one of 100 lines or more")
	}
}
