// Package load has runs of the node plugin, and of its queue alone, that take the processors for longer than the quick
// loop has.
package load

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/local"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const name = "csi.mayfly.dev"

// counting counts the requests to a signer.
type counting struct {
	signer.Signer
	requests atomic.Int64
}

func (c *counting) Sign(ctx context.Context, req signer.Request) (signer.Issued, error) {
	c.requests.Add(1)
	return c.Signer.Sign(ctx, req)
}

// start runs a driver on an empty node until the test ends.
func start(t *testing.T) (*kubelet.Kubelet, kubelet.Driver, *counting) {
	t.Helper()
	root, err := os.MkdirTemp("", "load-") // Not t.TempDir, whose path is too long for a socket.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kubelet.CleanUp(root); err != nil {
			t.Error(err)
		}
	})
	k, err := kubelet.New(root)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := local.Open(filepath.Join(root, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	plugin := filepath.Join(root, "plugins", name)
	s := &counting{Signer: ca}
	d, err := driver.New(driver.Config{
		Names:   []driver.Name{{Name: name, Endpoint: filepath.Join(plugin, "csi.sock")}},
		Version: "test", NodeName: "node-a", KubeletRoot: root, StateDir: filepath.Join(plugin, "volumes"),
		Signer: s, RenewalsPerSecond: 1000, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		err := d.Run(ctx)
		cancel()
		ended <- err
	}()
	connection, err := k.Register(ctx, name)
	if err != nil {
		cancel()
		t.Fatal(errors.Join(err, <-ended))
	}
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, connection.Close()); err != nil {
			t.Error(err)
		}
	})
	return k, connection, s
}

// Many volumes with short certificates, and readers that go round them all the time.
func TestAThousandRotationsUnderLoad(t *testing.T) {
	const volumes, rotations = 100, 1000
	k, d, s := start(t)
	var targets []string
	for i := range volumes {
		v := kubelet.Volume{
			Pod: kubelet.Pod{
				Namespace: "shop", Name: "web-0", UID: fmt.Sprintf("3b2f6a5e-0001-4c5e-9d3e-%012d", i), ServiceAccount: "web",
			},
			Attributes: map[string]string{
				"csi.mayfly.dev/issuer-name": "ca", "csi.mayfly.dev/dns-names": "${POD_NAME}.${POD_NAMESPACE}.svc",
				"csi.mayfly.dev/duration": "2s", "csi.mayfly.dev/layout": "pem,bundle",
			},
		}
		target, err := k.Mount(t.Context(), d, v, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := k.Unpublish(context.Background(), d, v); err != nil {
				t.Error(err)
			}
		})
		targets = append(targets, target)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() { readAll(ctx, t, targets) })
	}
	for s.requests.Load() < volumes+rotations && !t.Failed() {
		time.Sleep(50 * time.Millisecond)
	}
	cancel()
	readers.Wait()
}

// readAll loads the pair of every target, again and again.
func readAll(ctx context.Context, t *testing.T, targets []string) {
	for ctx.Err() == nil {
		for _, target := range targets {
			if _, err := kubelet.Load(target); err != nil {
				t.Errorf("read %s: %v", target, err)
				return
			}
		}
	}
}
