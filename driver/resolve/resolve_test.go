package resolve_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/pod"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/resolve"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

func asked(attributes map[string]string) volume.Asked {
	all := map[string]string{
		"csi.storage.k8s.io/pod.name": "web-0", "csi.storage.k8s.io/pod.namespace": "shop",
		"csi.storage.k8s.io/pod.uid": "1", "csi.storage.k8s.io/serviceAccount.name": "web",
		"csi.storage.k8s.io/ephemeral": "true",
	}
	for name, value := range attributes {
		all["csi.mayfly.dev/"+name] = value
	}
	return volume.Asked{Asked: spec.Asked{Driver: "csi.mayfly.dev", Attributes: all}, ID: "csi-1", Target: "/pods/1/mount"}
}

// newResolver makes a resolver, and a store with the directory of the volume csi-1 in its state directory.
func newResolver(t *testing.T, config resolve.Config) (*resolve.Resolver, *store.Store, string) {
	t.Helper()
	dir := t.TempDir()
	config.Log = slog.New(slog.DiscardHandler)
	var err error
	if config.Events, err = event.NewQueue(nil, renew.Clocks{}, config.Log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = config.Events.Close() })
	config.Gates = pod.NewGates(nil, func(string) {})
	t.Cleanup(config.Gates.Close)
	volumes, err := store.New(dir, time.Now, config.Log, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "csi-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	return resolve.New(config), volumes, dir
}

// The current flags count; where a volume does not fit them, what counted last does, and that is counted.
func TestRecorded(t *testing.T) {
	good := asked(map[string]string{"dns-names": "web.test"})
	before, err := volume.Parse(good, volume.Defaults{Defaults: spec.Defaults{IssuerName: "before"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		flags   volume.Defaults
		asked   volume.Asked
		issuer  string // Of the resolution.
		earlier float64
		fails   bool
	}{
		"flags that fit":            {volume.Defaults{Defaults: spec.Defaults{IssuerName: "now"}}, good, "now", 0, false},
		"a flag that is taken away": {volume.Defaults{}, good, "before", 1, false},
		"no flags, no resolution":   {volume.Defaults{}, good, "", 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			r, volumes, _ := newResolver(t, resolve.Config{Flags: row.flags, Metrics: registry})
			v := volumes.Get("csi-1")
			v.Amend(func(record *store.Record) {
				record.SetAsked(row.asked, before)
				if row.fails {
					record.Resolved = nil
				}
			})
			if err := r.Recorded(v); (err != nil) != row.fails {
				t.Errorf("got %v", err)
			}
			if got := v.Spec().Issuer.Name; got != row.issuer {
				t.Errorf("the issuer is %q, want %q", got, row.issuer)
			}
			families, err := registry.Gather()
			if err != nil || families[0].GetMetric()[0].GetGauge().GetValue() != row.earlier {
				t.Errorf("counted: %v (%v)", families, err)
			}
			r.Forget("csi-1")
			if families, err := registry.Gather(); err != nil || families[0].GetMetric()[0].GetGauge().GetValue() != 0 {
				t.Errorf("counted after it was forgotten: %v (%v)", families, err)
			}
		})
	}
}
