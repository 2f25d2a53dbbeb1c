package driver_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/issue"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/local"
	"github.com/mayfly-csi/mayfly/signer/spec"
	"github.com/mayfly-csi/mayfly/test/alarm"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// A volume that the kubelet has forgotten is found within an hour: long before its renewal, and where there is none.
// It goes if its pod's directory is gone, and nothing else is touched.
func TestAForgottenVolumeIsFoundWithinAnHour(t *testing.T) {
	for what, row := range map[string]struct {
		forget           func(k *kubelet.Kubelet, v kubelet.Volume) error
		stays, forgotten bool
	}{
		"the pod's directory is gone": {forget: func(k *kubelet.Kubelet, v kubelet.Volume) error {
			unmount(t, k.Target(v))
			return os.RemoveAll(filepath.Join(k.Root, "pods", v.UID))
		}},
		"the kubelet's file is gone": {
			func(k *kubelet.Kubelet, v kubelet.Volume) error { return os.Remove(k.Data(v)) }, true, true,
		},
		"the kubelet's file is empty": {
			func(k *kubelet.Kubelet, v kubelet.Volume) error { return os.Truncate(k.Data(v), 0) }, true, true,
		},
		"nothing is gone": {func(*kubelet.Kubelet, kubelet.Volume) error { return nil }, true, false},
	} {
		t.Run(what, func(t *testing.T) {
			root := t.TempDir()
			t.Cleanup(func() { must(t, kubelet.CleanUp(root)) })
			k, err := kubelet.New(root)
			must(t, err)
			ca, err := local.Open(filepath.Join(root, "ca"))
			must(t, err)
			now := time.Now()
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(now)) // The CA's certificate is of today.
				log, metrics := &logged{}, prometheus.NewRegistry()
				d := inBubble(t, k, driver.Config{Signer: ca, Metrics: metrics, Log: slog.New(slog.NewTextHandler(log, nil))})
				v, once, other := volumeOf("shop", "web", "ca", 1), volumeOf("shop", "web", "ca", 2), volumeOf("shop", "web", "ca", 3)
				once.Attributes["csi.mayfly.dev/renew"] = "false"
				for _, v := range []kubelet.Volume{v, once, other} {
					v.Attributes["csi.mayfly.dev/duration"] = "24h"
					publishTo(t, d, k, v)
				}
				must(t, row.forget(k, v), row.forget(k, once))
				time.Sleep(time.Hour + time.Second)
				synctest.Wait()
				for of, stays := range map[string]bool{v.ID(): row.stays, once.ID(): row.stays, other.ID(): true} {
					if there := exists(t, filepath.Join(k.Root, "plugins", name, "volumes", of)); there != stays {
						t.Errorf("volume %s is there: %v; should it: %v", of, there, stays)
					}
				}
				pair(t, k.Target(other))
				forgotten := 0
				if row.forgotten {
					forgotten = 2
				}
				if n := strings.Count(log.String(), "the kubelet can't unmount a volume"); n != forgotten {
					t.Errorf("the log has %d forgotten volumes, want %d: %s", n, forgotten, log)
				}
				want := fmt.Sprintf("# HELP %[1]s Volumes that the kubelet can't unmount, for its own file about them is missing; counted once an hour.\n"+
					"# TYPE %[1]s gauge\n%[1]s %d\n", "mayfly_volumes_forgotten", forgotten)
				must(t, testutil.GatherAndCompare(metrics, strings.NewReader(want), "mayfly_volumes_forgotten"))
			})
		})
	}
}

// inBubble runs a driver whose time is that of the bubble, until the test ends. It serves on no socket.
func inBubble(t *testing.T, k *kubelet.Kubelet, config driver.Config) *driver.Driver {
	t.Helper()
	config.Names, config.NodeName = []driver.Name{{Name: name}}, "node-a"
	config.KubeletRoot, config.StateDir = k.Root, filepath.Join(k.Root, "plugins", name, "volumes")
	clock := &alarm.Clock{}
	d, err := driver.NewWithClocks(config, renew.Clocks{Wall: clock.Now, New: func() (renew.Clock, error) { return clock.New(), nil }})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	synctest.Wait() // It has recovered.
	t.Cleanup(func() {
		cancel()
		must(t, <-ended)
	})
	return d
}

// publishTo publishes a volume without a socket.
func publishTo(t *testing.T, d *driver.Driver, k *kubelet.Kubelet, v kubelet.Volume) {
	t.Helper()
	target := k.Target(v)
	must(t, os.MkdirAll(filepath.Dir(target), 0o750), os.WriteFile(k.Data(v), []byte("{}"), 0o600))
	asked := volume.Asked{ID: v.ID(), Target: target}
	asked.Asked = spec.Asked{Driver: name, Attributes: k.Request(v).GetVolumeContext()}
	must(t, d.Publish(t.Context(), asked, issue.Token{}))
	pair(t, target)
}
