package registration

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"google.golang.org/grpc"
)

// A socket is a path on which a server serves, unless another process has replaced it.
type socket struct {
	path   string
	server *grpc.Server
	name   string // The driver's, if it is the socket of its registration; empty: it is a CSI socket.
	status *status

	listener net.Listener
	file     os.FileInfo // The socket that open made. No other file has its inode while listener is open.
	state    state
	serving  sync.WaitGroup
}

// A state says who answers at a socket's path.
type state int

const (
	ours     state = iota // The server answers.
	lost                  // No process answers.
	replaced              // Another process answers.
)

// open makes a new socket at the path and serves on it, then closes the one that was open before. failed is called if
// serving fails.
func (s *socket) open(ctx context.Context, failed func(error)) error {
	listener, file, err := listen(ctx, s.path)
	if err != nil {
		return err
	}
	s.serving.Go(func() {
		if err := s.server.Serve(listener); err != nil && !errors.Is(err, net.ErrClosed) {
			failed(fmt.Errorf("serve on %s: %w", s.path, err))
		}
	})
	if s.listener != nil {
		_ = s.listener.Close()
	}
	s.listener, s.file = listener, file
	s.setState(ours)
	return nil
}

// setState records who answers at the path. The kubelet registers a driver again whose registration socket comes back.
func (s *socket) setState(now state) {
	s.state = now
	s.status.set(s.path, map[state]string{
		lost: "the socket is not there", replaced: "another process answers on the socket",
	}[now])
	if s.name != "" && now != ours {
		s.status.set(s.name, notRegistered)
	}
}

// check returns who answers at the path now.
func (s *socket) check(ctx context.Context) state {
	there, err := os.Lstat(s.path)
	if err != nil {
		return lost
	}
	if os.SameFile(there, s.file) {
		return ours
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", s.path)
	if err == nil {
		_ = conn.Close()
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return lost
	}
	return replaced
}

// unlink removes the file at the path if open made it.
func (s *socket) unlink() error {
	there, err := os.Lstat(s.path)
	if err == nil && os.SameFile(there, s.file) {
		err = os.Remove(s.path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the socket: %w", err)
	}
	return nil
}

// drain stops the server when its calls have ended.
func (s *socket) drain() {
	s.server.GracefulStop()
	s.serving.Wait()
}

// listen makes a new socket at the path, under another name that it then renames, so that it replaces a predecessor's
// without a gap. The kubelet ignores names that begin with a dot (kubernetes
// pkg/kubelet/pluginmanager/pluginwatcher/plugin_watcher.go).
func listen(ctx context.Context, path string) (net.Listener, os.FileInfo, error) {
	// A random name: another process may be making a socket for the same path.
	aside := filepath.Join(filepath.Dir(path), "."+rand.Text()[:7])
	const longest = 107 // unix(7), sun_path.
	if limit := longest - max(0, len(aside)-len(path)); len(path) > limit {
		return nil, nil, fmt.Errorf("listen on %s: the path of a socket has at most %d bytes", path, limit)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, nil, fmt.Errorf("make the socket's directory: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", aside)
	if err != nil {
		return nil, nil, fmt.Errorf("listen: %w", err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	file, err := place(aside, path)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), listener.Close(), os.RemoveAll(aside))
	}
	return listener, file, nil
}

// place renames the socket at aside to path. Only root may connect to it.
func place(aside, path string) (os.FileInfo, error) {
	if err := os.Chmod(aside, 0o600); err != nil {
		return nil, err
	}
	file, err := os.Lstat(aside)
	if err != nil {
		return nil, err
	}
	return file, os.Rename(aside, path)
}
