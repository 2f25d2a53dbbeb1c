package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"

	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// A nothing is a node plugin that answers calls, and does nothing: they cost what gRPC costs.
type nothing struct{ csi.UnimplementedNodeServer }

// NodePublishVolume implements [csi.NodeServer].
func (nothing) NodePublishVolume(context.Context, *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	return &csi.NodePublishVolumeResponse{}, nil
}

// NodeGetCapabilities implements [csi.NodeServer].
func (nothing) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{Capabilities: []*csi.NodeServiceCapability{{
		Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: csi.NodeServiceCapability_RPC_GET_VOLUME_STATS}},
	}}}, nil
}

// NodeGetVolumeStats implements [csi.NodeServer].
func (nothing) NodeGetVolumeStats(context.Context, *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	return &csi.NodeGetVolumeStatsResponse{}, nil
}

// serveNothing is the process of a node plugin that does nothing, on the socket that it gets as its first further file.
func serveNothing(ctx context.Context, _ options) error {
	listener, err := net.FileListener(os.NewFile(3, "socket"))
	if err != nil {
		return fmt.Errorf("take the socket: %w", err)
	}
	server := grpc.NewServer()
	csi.RegisterNodeServer(server, nothing{})
	defer context.AfterFunc(ctx, server.Stop)()
	return server.Serve(listener)
}

// startNothing starts that process.
func startNothing(root string) (d *driver, err error) {
	k, err := kubelet.New(root)
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(root, "plugins", "csi.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	listener.SetUnlinkOnClose(false)
	file, err := listener.File()
	if err := errors.Join(err, listener.Close()); err != nil {
		return nil, fmt.Errorf("pass a socket on: %w", err)
	}
	defer file.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	d = &driver{Kubelet: k, Driver: kubelet.DialEachCall(socket), name: "nothing", process: exec.Command(self, "--idle-node")}
	d.process.ExtraFiles = []*os.File{file}
	d.process.Stderr = os.Stderr
	if err := d.process.Start(); err != nil {
		return nil, fmt.Errorf("start a node plugin that does nothing: %w", err)
	}
	d.pid = d.process.Process.Pid
	return d, nil
}
