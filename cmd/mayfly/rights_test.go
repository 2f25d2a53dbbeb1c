package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
)

// A node plugin warns once where it has a right that its mode does not need, and asks for it in no other mode.
func TestARightThatIsNotNeeded(t *testing.T) {
	for name, row := range map[string]struct {
		options options
		answer  string
		asked   bool
		warns   bool
	}{
		"nodes ask, and it may":      {options{Signer: signerPodCertificate}, "true", true, true},
		"nodes ask, and it may not":  {options{Signer: signerPodCertificate}, "false", true, false},
		"pods ask, and it may":       {options{Signer: signerCertManager, AsPod: true}, "true", true, true},
		"it asks, as it must":        {options{Signer: signerCertManager}, "true", false, false},
		"it stops before the answer": {options{Signer: signerPodCertificate}, "", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			lines := make(writer, 1)
			asked := make(chan string, 1)
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // Else net/http does not see that the client has gone.
				asked <- r.URL.Path
				if row.answer == "" {
					<-r.Context().Done()
					return
				}
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte(`{"status":{"allowed":` + row.answer + `}}`))
			}))
			defer api.Close()
			logger := slog.New(slog.NewTextHandler(lines, nil))
			err := withoutRights(t.Context(), &rest.Config{Host: api.URL}, row.options, logger, func(context.Context) error {
				if !row.asked {
					return nil
				}
				if path := <-asked; path != "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" {
					t.Error(path)
				}
				if !row.warns {
					return nil
				}
				if line := <-lines; !strings.Contains(line, "kubectl delete -f manifests/rbac.yaml") {
					t.Error(line)
				}
				return nil
			})
			if err != nil || len(lines) > 0 || !row.asked && len(asked) > 0 {
				t.Errorf("%d lines, asked %d times (%v)", len(lines), len(asked), err)
			}
		})
	}
}

// A writer passes on each line.
type writer chan string

func (w writer) Write(line []byte) (int, error) {
	w <- string(line)
	return len(line), nil
}
