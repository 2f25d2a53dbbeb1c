package placement

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

func TestReport(t *testing.T) {
	labelled := func(name, label string) client.Object {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{label: ""}}}
	}
	api := fake.NewClientBuilder().WithObjects(
		labelled("control", "node-role.kubernetes.io/control-plane"), labelled("worker", "node-role.kubernetes.io/worker"),
	).Build()
	for node, onWorker := range map[string]float64{"control": 0, "worker": 1} {
		var log bytes.Buffer
		metrics := prometheus.NewRegistry()
		if err := (Config{node, api, metrics, slog.New(slog.NewTextHandler(&log, nil))}).Report(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := gauge(t, metrics); got == nil || *got != onWorker {
			t.Errorf("on %s the metric is %v", node, got)
		}
		warned := strings.Count(log.String(), "\n") == 1 &&
			strings.Contains(log.String(), `level=WARN msg="the controller runs on a worker node: `) &&
			strings.Contains(log.String(), "node="+node)
		if warned != (onWorker == 1) || onWorker == 0 && log.Len() > 0 {
			t.Errorf("on %s the log has %q", node, log.String())
		}
	}
}

// What is not known is said to nobody.
func TestANodeThatCanNotBeRead(t *testing.T) {
	no := errors.New("no")
	api := fake.NewClientBuilder().WithInterceptorFuncs(interceptor.Funcs{
		Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
			return no
		},
	}).Build()
	metrics := prometheus.NewRegistry()
	err := Config{"worker", api, metrics, slog.New(slog.DiscardHandler)}.Report(t.Context())
	if !errors.Is(err, no) || !strings.HasPrefix(err.Error(), "read node worker, to know whether it is a worker: ") {
		t.Error(err)
	}
	if got := gauge(t, metrics); got != nil {
		t.Errorf("the metric is %v", *got)
	}
}

// gauge returns the metric; nil: there is none.
func gauge(t *testing.T, metrics *prometheus.Registry) *float64 {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "mayfly_controller_on_worker_node" {
			return f.GetMetric()[0].GetGauge().Value
		}
	}
	return nil
}
