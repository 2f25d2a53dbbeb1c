package store_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// The attributes of a volume are in the line as if they were given one by one.
func TestAttr(t *testing.T) {
	web := map[string]string{"csi.storage.k8s.io/pod.namespace": "shop", "csi.storage.k8s.io/pod.name": "web-0"}
	long := map[string]string{"csi.storage.k8s.io/pod.namespace": "shop", "csi.storage.k8s.io/pod.name": strings.Repeat("x", 254)}
	for _, row := range []struct {
		want  string
		asked volume.Asked
	}{
		{`{"msg":"x","volume":"csi-1","pod":"shop/web-0"}`, volume.Asked{Asked: spec.Asked{Attributes: web}}},
		{`{"msg":"x","volume":"csi-1"}`, volume.Asked{}},
		{`{"msg":"x","volume":"csi-1"}`, volume.Asked{Asked: spec.Asked{Attributes: long}}},
	} {
		var line bytes.Buffer
		log := slog.New(slog.NewJSONHandler(&line, &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
					return slog.Attr{}
				}
				return a
			},
		}))
		log.Info("x", store.Attr("csi-1", row.asked))
		if got := line.String(); got != row.want+"\n" {
			t.Errorf("got %s want %s", got, row.want)
		}
	}
}
