package driver_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/driver"
)

// A driver is healthy and ready whatever is under way: it is not the driver's fault that others are silent.
func TestTheHealthOfADriverThatWaits(t *testing.T) {
	t.Parallel()
	for name, row := range allUnderWay(t) {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, row.edit)
			row.begin(t, n, row.volume)
			if err := errors.Join(n.plugin.Healthy(t.Context()), n.plugin.Ready()); err != nil {
				t.Error(err)
			}
			if err := n.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Health tests the CSI socket of each name.
func TestTheHealthOfEachName(t *testing.T) {
	const second = "csi2.mayfly.dev"
	n := newNode(t, func(c *driver.Config) {
		endpoint := filepath.Join(c.KubeletRoot, "plugins", second, "csi.sock")
		c.Names = append(c.Names, driver.Name{Name: second, Endpoint: endpoint})
	})
	healthy := func() bool { return n.plugin.Healthy(t.Context()) == nil }
	until(t, "it is healthy", healthy)
	if err := n.plugin.Ready(); err == nil || err.Error() != second+": the kubelet has not registered the driver" {
		t.Error(err)
	}
	socket := filepath.Join(n.Root, "plugins", second, "csi.sock")
	if err := errors.Join(os.Remove(socket), os.MkdirAll(filepath.Join(socket, "x"), 0o750)); err != nil {
		t.Fatal(err)
	}
	if err := n.plugin.Healthy(t.Context()); err == nil || !strings.Contains(err.Error(), "call Probe on "+socket) {
		t.Error(err)
	}
	if err := os.RemoveAll(socket); err != nil {
		t.Fatal(err)
	}
	until(t, "it is healthy again", healthy)
	if err := n.stop(); err != nil {
		t.Error(err)
	}
	if err := n.plugin.Healthy(t.Context()); err != nil {
		t.Errorf("after its end: %v", err)
	}
	if n.plugin.Ready() == nil {
		t.Error("it is ready after its end")
	}
}
