package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/cmd/flags"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// get returns the status and the body of a page; 0 while nobody serves.
func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close() //nolint:errcheck // It was read.
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// becomes waits until a page has a status and a body.
func becomes(t *testing.T, url string, status int, body string) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		gotStatus, gotBody := get(t, url)
		if gotStatus == status && gotBody == body {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %d %q, not %d %q", url, gotStatus, gotBody, status, body)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// free returns an address on which nobody listens.
func free(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // Nobody has connected.
	return l.Addr().String()
}

// The kubelet's probes see a node plugin that is ready once the kubelet has registered it, and that is not healthy while
// it does not answer on its socket.
func TestProbes(t *testing.T) {
	root, err := os.MkdirTemp("", "probes-") // A test's own directory makes a socket's path too long.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	k, err := kubelet.New(root)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended, address := make(chan int, 1), free(t)
	go func() {
		code, _, _ := command(ctx, nil, "node", "--node-name=a", "--signer=local", "--kubelet-root="+root, "--health-address="+address)
		ended <- code
	}()
	ready, healthy := "http://"+address+"/readyz", "http://"+address+"/healthz"
	becomes(t, ready, http.StatusServiceUnavailable, "csi.mayfly.dev: the kubelet has not registered the driver\n")
	becomes(t, healthy, http.StatusOK, "ok\n")
	d, err := k.Register(ctx, "csi.mayfly.dev")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	becomes(t, ready, http.StatusOK, "ok\n")

	socket := filepath.Join(root, "plugins", "csi.mayfly.dev", "csi.sock")
	if err := errors.Join(os.Remove(socket), os.MkdirAll(filepath.Join(socket, "x"), 0o750)); err != nil {
		t.Fatal(err)
	}
	becomes(t, ready, http.StatusServiceUnavailable, socket+": the socket is not there\n")
	if status, body := get(t, healthy); status != http.StatusServiceUnavailable {
		t.Errorf("%d %q", status, body)
	}
	if err := os.RemoveAll(socket); err != nil {
		t.Fatal(err)
	}
	becomes(t, healthy, http.StatusOK, "ok\n")
	becomes(t, ready, http.StatusOK, "ok\n")
	cancel()
	if code := <-ended; code != flags.ExitOK {
		t.Errorf("exit code %d", code)
	}
}
