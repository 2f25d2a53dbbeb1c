// Package placement reports whether a replica of mayfly-controller runs on a worker node: root there has the replica's
// token, and decides with it.
package placement

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// controlPlane is the label of control-plane nodes. With NodeRestriction a kubelet can't give it to its node
// (kubernetes plugin/pkg/admission/noderestriction/admission.go, getModifiedLabels; k8s.io/kubelet pkg/apis,
// IsKubeletLabel).
const controlPlane = "node-role.kubernetes.io/control-plane"

// Config is what a report is made of. All fields are required.
type Config struct {
	Node    string // The replica's node.
	API     client.Reader
	Metrics prometheus.Registerer
	Log     *slog.Logger
}

// Report reads the node, warns if it is a worker, and makes the metric that says so. Without an answer there is no
// metric: that is its error.
func (c Config) Report(ctx context.Context) error {
	node := &corev1.Node{}
	if err := c.API.Get(ctx, client.ObjectKey{Name: c.Node}, node); err != nil {
		return fmt.Errorf("read node %s, to know whether it is a worker: %w", c.Node, err)
	}
	onWorker := promauto.With(c.Metrics).NewGauge(prometheus.GaugeOpts{
		Name: "mayfly_controller_on_worker_node",
		Help: "Whether this replica runs on a worker node, whose root can decide in its place.",
	})
	if _, ok := node.Labels[controlPlane]; ok {
		return nil
	}
	onWorker.Set(1)
	c.Log.Warn("the controller runs on a worker node: root there can approve any request, and has the keys of its CAs; "+
		"see docs/controller.md, Where it runs", "node", c.Node)
	return nil
}
