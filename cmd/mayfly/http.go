package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// withHTTP serves the handler for as long as run runs; an empty address: it only runs. what names the handler in
// errors.
func withHTTP(ctx context.Context, what, address string, handler http.Handler, run func(context.Context) error) error {
	if address == "" {
		return run(ctx)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("serve %s: %w", what, err)
	}
	server := &http.Server{
		Handler: handler, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	err = errors.Join(run(ctx), server.Close())
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve %s: %w", what, serveErr))
	}
	return err
}

// A plugin reports its health.
type plugin interface {
	Healthy(ctx context.Context) error
	Ready() error
}

// health makes the handler of the kubelet's probes.
func health(p plugin) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { answer(w, p.Healthy(r.Context())) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { answer(w, p.Ready()) })
	return mux
}

// answer answers a probe: what is wrong, or ok.
func answer(w http.ResponseWriter, wrong error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	text := "ok"
	if wrong != nil {
		text = wrong.Error()
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = io.WriteString(w, text+"\n") // The caller may be gone.
}
