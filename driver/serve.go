package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// serve answers on the sockets until ctx ends and the calls in flight have.
func (d *Driver) serve(ctx context.Context) error {
	// Calls are small. To estimate a window would cost a ping for each of them (google.golang.org/grpc internal/transport/bdp_estimator.go).
	const window = 64 << 10
	var sockets []socket
	for _, name := range d.Names {
		server := grpc.NewServer(grpc.UnaryInterceptor(d.answer), grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window))
		csi.RegisterIdentityServer(server, identity{Driver: d, Name: name})
		csi.RegisterNodeServer(server, &node{Driver: d, name: name.Name})
		sockets = append(sockets, socket{name.Endpoint, server})
	}
	if d.KubeletRoot != "" {
		// After the CSI sockets: the kubelet calls them as soon as it sees these.
		for _, name := range d.Names {
			registrar := grpc.NewServer()
			registration.RegisterRegistrationServer(registrar, registrant{Driver: d, Name: name})
			sockets = append(sockets, socket{d.registrationSocket(name), registrar})
		}
	}
	return d.listen(ctx, sockets)
}

type socket struct {
	path   string
	server *grpc.Server
}

func (d *Driver) registrationSocket(name Name) string {
	return filepath.Join(d.KubeletRoot, "plugins_registry", name.Name+"-reg.sock")
}

// listen opens the sockets in order, and closes them in reverse: the kubelet's view goes first.
func (d *Driver) listen(ctx context.Context, sockets []socket) (err error) {
	failed := make(chan error, len(sockets))
	for _, s := range sockets {
		listener, openErr := open(ctx, s.path)
		if openErr != nil {
			return openErr
		}
		defer func() { err = errors.Join(err, drain(s.server, listener)) }()
		d.background.Go(func() { failed <- s.server.Serve(listener) })
	}
	for _, name := range d.Names {
		d.Log.Info("serving", "driver", name.Name, "version", d.Version, "node", d.NodeName, "endpoint", name.Endpoint, "volumes", len(d.store.All()))
	}
	select {
	case <-ctx.Done():
		d.Log.Info("stopping: mounts stay", "volumes", len(d.store.All()))
		return nil
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	}
}

// drain takes the socket away and lets calls in flight end, or cancels them when that takes too long.
func drain(server *grpc.Server, listener *ownSocket) error {
	err := listener.unlink()
	timer := time.AfterFunc(drainTimeout, server.Stop)
	defer timer.Stop()
	server.GracefulStop()
	return err
}

// An ownSocket is a listener on a Unix socket that knows its own file: a successor may have put another in its place.
type ownSocket struct {
	net.Listener
	path string
	file os.FileInfo
}

// open listens on path. The socket is made aside and renamed into place, so that there is no time without one
// when it replaces that of a predecessor. The kubelet overlooks names that begin with a dot (kubernetes pkg/kubelet/pluginmanager/pluginwatcher/plugin_watcher.go).
func open(ctx context.Context, path string) (*ownSocket, error) {
	const longest = 107 // unix(7), sun_path.
	aside := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if len(aside) > longest {
		return nil, fmt.Errorf("listen on %s: the path of a socket has at most %d bytes", path, longest-1)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("make the socket's directory: %w", err)
	}
	if err := os.RemoveAll(aside); err != nil {
		return nil, fmt.Errorf("make the socket: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", aside)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	s := &ownSocket{Listener: listener, path: path}
	if err := s.place(aside); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), listener.Close(), os.RemoveAll(aside))
	}
	return s, nil
}

func (s *ownSocket) place(aside string) (err error) {
	if err := os.Chmod(aside, 0o600); err != nil {
		return err
	}
	if s.file, err = os.Lstat(aside); err != nil {
		return err
	}
	return os.Rename(aside, s.path)
}

// unlink removes the socket's file if it is still its own.
func (s *ownSocket) unlink() error {
	there, err := os.Lstat(s.path)
	if err == nil && os.SameFile(there, s.file) {
		err = os.Remove(s.path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the socket: %w", err)
	}
	return nil
}
