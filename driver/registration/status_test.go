package registration_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/mayfly-csi/mayfly/driver/registration"
)

// notify tells a driver how its registration ended, as the kubelet does.
func notify(t *testing.T, socket string, status *registerapi.RegistrationStatus) {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := registerapi.NewRegistrationClient(conn).NotifyRegistrationStatus(t.Context(), status); err != nil {
		t.Fatal(err)
	}
}

// A server is ready while the kubelet has registered each name and this process answers on all sockets, and says in plain
// words what is missing.
func TestReady(t *testing.T) {
	k := newKubelet(t)
	const second = "z.example.org"
	s := &registration.Server{
		Plugins:     []registration.Plugin{fakeNode{}.plugin(k, name), fakeNode{}.plugin(k, second)},
		KubeletRoot: k.Root, Drain: time.Hour, Log: slog.New(slog.DiscardHandler),
	}
	ready := func(want ...string) {
		t.Helper()
		got := ""
		until(t, strings.Join(want, "; "), func() bool {
			got = ""
			if err := s.Ready(); err != nil {
				got = err.Error()
			}
			if t.Context().Err() != nil {
				t.Fatal(got)
			}
			return got == strings.Join(want, "\n")
		})
	}
	const absent, stopped = ": the kubelet has not registered the driver", "the driver does not serve: it starts or stops"
	ready(stopped)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	ready(name+absent, second+absent)
	register := func(name string) {
		t.Helper()
		notify(t, registrationSocket(k, name), &registerapi.RegistrationStatus{PluginRegistered: true})
	}
	register(name)
	ready(second + absent)
	notify(t, registrationSocket(k, second), &registerapi.RegistrationStatus{Error: "another version is registered"})
	ready(second + ": the kubelet refused to register the driver: another version is registered")
	register(second)
	ready()

	// A registration socket that was lost: the kubelet registers the driver again.
	if err := os.Remove(registrationSocket(k, name)); err != nil {
		t.Fatal(err)
	}
	ready(name + absent)
	register(name)
	ready()

	// A CSI socket in whose place is something else.
	path := endpoint(k, second)
	if err := errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "x"), 0o750)); err != nil {
		t.Fatal(err)
	}
	ready(path + ": the socket is not there")
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	ready()

	// A second driver of the same name.
	other := one(t, k, "other")
	ready(endpoint(k, name)+": another process answers on the socket",
		registrationSocket(k, name)+": another process answers on the socket", name+absent)
	if err := other.stop(); err != nil {
		t.Error(err)
	}
	ready(name + absent)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	ready(stopped)
}
