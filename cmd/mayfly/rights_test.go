package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

func TestWhoAsks(t *testing.T) {
	for want, all := range map[bool][]options{
		true:  {{Signer: signerCertManager}},
		false: {{Signer: signerCertManager, AsPod: true}, {Signer: signerPodCertificate}, {Signer: signerLocal}},
	} {
		for _, o := range all {
			if got := o.asksItself(); got != want {
				t.Errorf("%s, as the pod %t: %t", o.Signer, o.AsPod, got)
			}
		}
	}
}

// A node plugin warns once where it has a right that its mode does not need.
func TestARightThatIsNotNeeded(t *testing.T) {
	for name, row := range map[string]struct {
		options options
		answer  string
		warns   bool
	}{
		"nodes ask, and it may":      {options{Signer: signerPodCertificate}, "true", true},
		"nodes ask, and it may not":  {options{Signer: signerPodCertificate}, "false", false},
		"pods ask, and it may":       {options{Signer: signerCertManager, AsPod: true}, "true", true},
		"it stops before the answer": {options{Signer: signerPodCertificate}, "", false},
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
				if path := <-asked; path != "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" {
					t.Error(path)
				}
				if !row.warns {
					return nil
				}
				select {
				case line := <-lines:
					if !strings.Contains(line, "kubectl delete -f manifests/rbac.yaml") {
						t.Error(line)
					}
				case <-time.After(time.Minute):
					t.Error("it does not warn")
				}
				return nil
			})
			if err != nil || len(lines) > 0 {
				t.Errorf("%d lines (%v)", len(lines), err)
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
