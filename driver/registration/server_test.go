package registration_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/mayfly-csi/mayfly/driver/registration"
)

// The kubelet calls the CSI sockets as soon as it sees those of the registration, and shall find no socket that is
// about to go.
func TestTheRegistrationComesLastAndGoesFirst(t *testing.T) {
	k := newKubelet(t)
	other := "csi2.example.org"
	broken := registrationSocket(k, other)
	if err := os.MkdirAll(filepath.Join(broken, "x"), 0o750); err != nil {
		t.Fatal(err)
	}
	s := registration.Server{
		Plugins:     []registration.Plugin{fakeNode{}.plugin(k, name), fakeNode{}.plugin(k, other)},
		KubeletRoot: k.Root, Drain: time.Hour, Log: slog.New(slog.DiscardHandler),
	}
	watched := watchNames(t, k, name, other)
	err := s.Serve(t.Context())
	if err == nil || !strings.Contains(err.Error(), "listen on "+broken) {
		t.Errorf("a directory is in the socket's place: %v", err)
	}
	seen := watched()
	csi1, csi2, reg := endpoint(k, name), endpoint(k, other), registrationSocket(k, name)
	want := []string{"+" + csi1, "+" + csi2, "+" + reg, "-" + reg, "-" + csi2, "-" + csi1}
	if !slices.Equal(seen, want) {
		t.Errorf("sockets came and went as\n%q, not as\n%q", seen, want)
	}
}

func TestSocketsThatCannotBe(t *testing.T) {
	k := newKubelet(t)
	file := filepath.Join(k.Root, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, words := range map[string]string{
		filepath.Join(k.Root, strings.Repeat("x", 108-len(k.Root)-1)): "has at most 107 bytes",
		filepath.Join(file, "csi.sock"):                               "make the socket's directory: ",
	} {
		p := fakeNode{}.plugin(k, name)
		p.Endpoint = path
		s := registration.Server{Plugins: []registration.Plugin{p}, KubeletRoot: k.Root, Drain: time.Hour, Log: slog.New(slog.DiscardHandler)}
		if err := s.Serve(t.Context()); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if left, err := os.ReadDir(filepath.Join(k.Root, "plugins_registry")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestTheLongestPath(t *testing.T) {
	k := newKubelet(t)
	p := fakeNode{instance: "a"}.plugin(k, name)
	p.Endpoint = filepath.Join(k.Root, strings.Repeat("x", 107-len(k.Root)-1))
	answers(t, k, start(t, k, time.Hour, p), "a")
}

// As after a SIGKILL or a loss of power.
func TestASocketThatAPredecessorLeft(t *testing.T) {
	k := newKubelet(t)
	leave(t, registrationSocket(k, name))
	answers(t, k, one(t, k, "a"), "a")
}

// All servers drain at once: the call under each name ends only after the others' servers have begun to stop.
func TestNamesDrainTogether(t *testing.T) {
	k := newKubelet(t)
	names := []string{"a.example.org", "b.example.org", "c.example.org"}
	var plugins []registration.Plugin
	var stopping sync.WaitGroup // The servers that have not begun to.
	began := make(chan struct{}, len(names))
	for _, n := range names {
		stopping.Add(1)
		p := fakeNode{probe: func(context.Context) error {
			began <- struct{}{}
			stopping.Wait()
			return nil
		}}.plugin(k, n)
		plugins = append(plugins, p)
	}
	i := start(t, k, time.Hour, plugins...)
	var calls []<-chan error
	for _, n := range names {
		calls = append(calls, draining(t, k, n, stopping.Done))
		calls = append(calls, probe(t, k, n))
		<-began
	}
	if err := i.stop(); err != nil {
		t.Error(err)
	}
	for _, call := range calls {
		if err := <-call; err != nil {
			t.Error(err)
		}
	}
}

func TestCallsThatDoNotEndAreCancelled(t *testing.T) {
	k := newKubelet(t)
	names := []string{"a.example.org", "b.example.org"}
	var plugins []registration.Plugin
	began := make(chan struct{}, len(names))
	for _, n := range names {
		plugins = append(plugins, fakeNode{probe: func(ctx context.Context) error {
			began <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}}.plugin(k, n))
	}
	i := start(t, k, time.Millisecond, plugins...)
	var calls []<-chan error
	for _, n := range names {
		calls = append(calls, probe(t, k, n))
		<-began
	}
	if err := i.stop(); err != nil {
		t.Error(err)
	}
	for _, call := range calls {
		if err := <-call; err == nil {
			t.Error("a call was answered")
		}
	}
}

// A server that ends by itself ends Serve.
func TestAServerThatFails(t *testing.T) {
	k := newKubelet(t)
	p := fakeNode{}.plugin(k, name)
	p.Server.Stop()
	s := registration.Server{Plugins: []registration.Plugin{p}, Drain: time.Hour, Log: slog.New(slog.DiscardHandler)}
	if err := s.Serve(t.Context()); !errors.Is(err, grpc.ErrServerStopped) || !strings.HasPrefix(err.Error(), "serve on "+p.Endpoint) {
		t.Errorf("%v", err)
	}
	gone(t, p.Endpoint)
}
