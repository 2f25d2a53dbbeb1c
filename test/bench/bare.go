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
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// A bareNode is a node plugin that makes only the system calls that a volume needs, and none for a volume that is
// there.
type bareNode struct {
	csi.UnimplementedNodeServer
	state string // Where the volumes' tmpfs are mounted.
}

// NodePublishVolume implements [csi.NodeServer].
func (n bareNode) NodePublishVolume(
	_ context.Context, req *csi.NodePublishVolumeRequest,
) (*csi.NodePublishVolumeResponse, error) {
	if _, err := os.Lstat(req.GetTargetPath()); err == nil {
		return &csi.NodePublishVolumeResponse{}, nil
	}
	v := bareVolume{filepath.Join(n.state, req.GetVolumeId()), req.GetTargetPath()}
	return &csi.NodePublishVolumeResponse{}, v.publish()
}

// NodeUnpublishVolume implements [csi.NodeServer].
func (n bareNode) NodeUnpublishVolume(
	_ context.Context, req *csi.NodeUnpublishVolumeRequest,
) (*csi.NodeUnpublishVolumeResponse, error) {
	v := bareVolume{filepath.Join(n.state, req.GetVolumeId()), req.GetTargetPath()}
	return &csi.NodeUnpublishVolumeResponse{}, v.unpublish()
}

// NodeGetCapabilities implements [csi.NodeServer].
func (bareNode) NodeGetCapabilities(
	context.Context, *csi.NodeGetCapabilitiesRequest,
) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{}, nil
}

// serveBare is the process of a bareNode, on the socket that it gets as its first further file.
func serveBare(ctx context.Context, o options) error {
	listener, err := net.FileListener(os.NewFile(3, "socket"))
	if err != nil {
		return fmt.Errorf("take the socket: %w", err)
	}
	server := grpc.NewServer()
	csi.RegisterNodeServer(server, bareNode{state: o.bareNode})
	defer context.AfterFunc(ctx, server.Stop)()
	return server.Serve(listener)
}

// startBare starts that process, in a cgroup if one is given.
func startBare(root string, group *cgroup) (d *driver, err error) {
	k, err := kubelet.New(root)
	if err != nil {
		return nil, err
	}
	state, socket := filepath.Join(root, "volumes"), filepath.Join(root, "csi.sock")
	if err := os.Mkdir(state, 0o700); err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
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
	command := []string{self, "--bare-node=" + state}
	if group != nil {
		command = group.command(command...)
	}
	d = &driver{group: group, Kubelet: k, Driver: kubelet.DialEachCall(socket), name: "bare"}
	d.process = exec.Command(command[0], command[1:]...)
	d.process.ExtraFiles = []*os.File{file}
	d.process.Stderr = &d.log
	if err := d.process.Start(); err != nil {
		return nil, fmt.Errorf("start the bare node plugin: %w", err)
	}
	d.pid = d.process.Process.Pid
	return d, nil
}

// A bareVolume is a volume made by system calls alone.
type bareVolume struct{ state, target string }

func (v bareVolume) publish() error {
	state, target := v.state, v.target
	if _, err := newCSR(); err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir(state, 0o700), os.Mkdir(target, 0o700)); err != nil {
		return err
	}
	if err := unix.Mount("bench", state, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=1m"); err != nil {
		return err
	}
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
		if err := os.WriteFile(filepath.Join(state, name), make([]byte, 1024), 0o400); err != nil {
			return err
		}
	}
	if err := unix.Mount(state, target, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
}

func (v bareVolume) unpublish() error {
	return errors.Join(unix.Unmount(v.target, unix.MNT_DETACH), unix.Unmount(v.state, unix.MNT_DETACH),
		os.Remove(v.target), os.Remove(v.state))
}
