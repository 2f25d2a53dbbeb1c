package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// An idle is what a driver uses that has nothing to do.
type idle struct {
	cpu     float64 // In percent of a core.
	files   float64 // Open descriptors.
	watches float64 // At the API server; those of every client that came after the bench had begun.
}

// idleOf watches a driver that has nothing to do.
func (b *bench) idleOf(ctx context.Context, d *driver) (i idle, err error) {
	cpu, err := d.spent(func() error { return wait(ctx, b.idle) })
	if err != nil {
		return i, err
	}
	i.cpu = 100 * cpu.total().Seconds() / b.idle.Seconds()
	if i.files, err = d.files(); err != nil {
		return i, err
	}
	i.watches, err = b.newWatches(ctx)
	return i, err
}

// newWatches returns how many watches the API server has more than before mayfly was started.
func (b *bench) newWatches(ctx context.Context) (float64, error) {
	n, err := b.api.watches(ctx)
	return n - b.watches, err
}

// watches returns how many watches the API server has, of all its clients.
func (a *api) watches(ctx context.Context) (float64, error) {
	text, err := a.certs.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the API server's metrics: %w", err)
	}
	return countWatches(text)
}

// countWatches finds the number of open watches in the metrics of an API server (k8s.io/apiserver
// pkg/endpoints/metrics).
func countWatches(text []byte) (n float64, err error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return 0, fmt.Errorf("parse the API server's metrics: %w", err)
	}
	running := families["apiserver_longrunning_requests"].GetMetric()
	if len(running) == 0 {
		return 0, errors.New("the API server has no metric of its watches")
	}
	for _, m := range running {
		if isWatch(m) {
			n += m.GetGauge().GetValue()
		}
	}
	return n, nil
}

// isWatch reports whether the metric is of watches.
func isWatch(m *dto.Metric) bool {
	for _, l := range m.GetLabel() {
		if l.GetName() == "verb" {
			return l.GetValue() == "WATCH"
		}
	}
	return false
}
