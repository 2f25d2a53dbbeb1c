// Package service has the CSI services that the kubelet calls: it checks calls, hands them on, and chooses the status
// code of each answer.
package service

import (
	"context"
	"log/slog"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc"

	"github.com/mayfly-csi/mayfly/driver/issue"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// A Publisher does what the kubelet asks for. See [Invalid] for its errors.
type Publisher interface {
	// Publish returns when a valid pair is in the volume and the volume is mounted on its target.
	Publish(ctx context.Context, asked volume.Asked, token issue.Token) error
	// Unpublish removes the volume. It succeeds if there is none.
	Unpublish(ctx context.Context, id, target string) error
}

// A Plugin is a node plugin under one of its names. All fields but Clocks are required.
type Plugin struct {
	Name        string // As in the CSIDriver object.
	Dialect     spec.Dialect
	Version     string
	NodeName    string
	KubeletRoot string // Empty: accept targets anywhere.

	Metrics   *Metrics // Those of all names.
	Publisher Publisher
	Volumes   *store.Store
	Clocks    renew.Clocks
	BlockedBy func(id string) error // Why the volume's certificate is not requested yet; nil: no pod delays it.
	Log       *slog.Logger
}

// Metrics are the metrics of the services under all names of a driver. Make them with [NewMetrics].
type Metrics struct {
	invalid prometheus.Counter
}

// NewMetrics makes the metrics. It panics if the registry has them already; a nil one gets none.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	return &Metrics{invalid: promauto.With(registry).NewCounter(prometheus.CounterOpts{
		Name: "mayfly_volumes_invalid_total",
		Help: "Publish calls that were refused because the volume's attributes, or the call itself, are wrong: " +
			"the kubelet repeats them."})}
}

// NewServer makes a server with the CSI services.
func (p Plugin) NewServer() *grpc.Server {
	// Calls are small: a fixed window saves the ping by which gRPC would estimate one for each (google.golang.org/grpc
	// internal/transport/bdp_estimator.go).
	const window = 64 << 10
	server := grpc.NewServer(
		grpc.UnaryInterceptor(p.answer), grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window))
	csi.RegisterIdentityServer(server, identity{Plugin: p})
	csi.RegisterNodeServer(server, node{Plugin: p})
	return server
}
