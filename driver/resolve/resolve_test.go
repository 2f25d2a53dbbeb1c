package resolve_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/pod"
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
			log, registry, dir := slog.New(slog.DiscardHandler), prometheus.NewRegistry(), t.TempDir()
			queue, err := event.NewQueue(nil, nil, log)
			if err != nil {
				t.Fatal(err)
			}
			defer queue.Close() //nolint:errcheck // It is not used any more.
			volumes, err := store.New(dir, log, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(dir, "csi-1"), 0o700); err != nil {
				t.Fatal(err)
			}
			r := resolve.New(resolve.Config{
				Flags: row.flags, Gates: pod.NewGates(nil, func(string) {}), Events: queue, Metrics: registry, Log: log,
			})
			defer r.Gates.Close()
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
