package driver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"

	"github.com/mayfly-csi/mayfly/driver/registration"
)

// serve serves on the sockets of all names until ctx ends, and returns when the calls in flight have ended.
func (d *Driver) serve(ctx context.Context) error {
	server := registration.Server{KubeletRoot: d.KubeletRoot, Drain: drainTimeout, Log: d.Log}
	for _, name := range d.Names {
		plugin := registration.Plugin{Name: name.Name, Endpoint: name.Endpoint, Server: d.newServer(name)}
		server.Plugins = append(server.Plugins, plugin)
	}
	d.Log.Info("starting", "version", d.Version, "node", d.NodeName, "volumes", len(d.store.All()))
	defer func() { d.Log.Info("stopped: mounts stay", "volumes", len(d.store.All())) }()
	return server.Serve(ctx)
}

// newServer makes a server with the CSI services under one name.
func (d *Driver) newServer(name Name) *grpc.Server {
	// Calls are small: a fixed window saves the ping by which gRPC would estimate one for each (google.golang.org/grpc
	// internal/transport/bdp_estimator.go).
	const window = 64 << 10
	server := grpc.NewServer(
		grpc.UnaryInterceptor(d.answer), grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window))
	csi.RegisterIdentityServer(server, identity{Driver: d, Name: name})
	csi.RegisterNodeServer(server, &node{Driver: d, name: name.Name})
	return server
}
