// Package registration serves a CSI node plugin on its sockets and registers it with the kubelet. While the plugin
// runs it restores sockets that others remove; when it stops it lets calls end.
package registration

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// A Plugin is a name under which a node plugin serves, with a socket of its own.
type Plugin struct {
	Name     string       // As in the CSIDriver object.
	Endpoint string       // Path of the CSI socket; empty: others serve, and the kubelet is offered nothing.
	Server   *grpc.Server // Has the CSI services. Serve starts it if there is an endpoint, and stops it.
}

// A Server serves plugins. All fields are required but those that say otherwise.
type Server struct {
	Plugins     []Plugin
	KubeletRoot string        // Empty: don't register with a kubelet.
	Drain       time.Duration // How long calls in flight have to end when Serve stops, all together.
	Log         *slog.Logger

	status status
}

// Ready returns what keeps the kubelet from calling the plugins: each socket on which this process does not answer, and
// each driver that the kubelet has not registered; nil if there is nothing.
func (s *Server) Ready() error { return s.status.error() }

// Serving reports whether Serve has opened its sockets and was not told to stop.
func (s *Server) Serving() bool { return s.status.isServing() }

// Serve serves on the sockets until ctx ends or one of them fails. Then it removes the sockets, lets the calls in
// flight end or cancels them after Drain, and returns when all of them have ended. Call it once.
//
// A socket that is removed while Serve runs is restored a second later; so is one that was replaced by something on
// which no process answers. A socket on which another process answers stays: that is a successor, or another driver of
// the same name, and if two replaced each other's the kubelet would register without an end. The other process has the
// new calls until it ends and removes its socket; then Serve restores its own.
//
// A path that can't be listened on is an error at the start, and only logged later: running pods need the plugin even
// if no new ones can start.
func (s *Server) Serve(ctx context.Context) (err error) {
	serving, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	sockets := s.sockets()
	defer func() { err = errors.Join(err, s.close(sockets)) }()
	for _, socket := range sockets {
		socket.setState(lost)
	}
	for _, socket := range sockets {
		if err := socket.open(serving, fail); err != nil {
			return err
		}
	}
	for _, p := range s.Plugins {
		s.Log.Info("serving", "driver", p.Name, "endpoint", p.Endpoint)
	}
	s.status.setServing(true)
	k := keeper{sockets: sockets, failed: fail, log: s.Log}
	k.run(serving)
	if ctx.Err() == nil {
		return context.Cause(serving)
	}
	return nil
}

// sockets returns the sockets in the order in which they are opened: the kubelet calls the CSI sockets as soon as it
// finds those of the registration.
func (s *Server) sockets() (all []*socket) {
	plugins := slices.DeleteFunc(slices.Clone(s.Plugins), func(p Plugin) bool { return p.Endpoint == "" })
	for _, p := range plugins {
		all = append(all, &socket{path: filepath.Clean(p.Endpoint), server: p.Server, status: &s.status})
	}
	if s.KubeletRoot == "" {
		return all
	}
	for _, p := range plugins {
		server := grpc.NewServer()
		registerapi.RegisterRegistrationServer(server, registrant{Plugin: p, status: &s.status, log: s.Log})
		path := filepath.Join(s.KubeletRoot, "plugins_registry", p.Name+"-reg.sock")
		all = append(all, &socket{path: path, server: server, name: p.Name, status: &s.status})
	}
	return all
}

// close removes the sockets, those of the registration first, and stops all servers concurrently.
func (s *Server) close(sockets []*socket) error {
	s.status.setServing(false)
	var errs []error
	for _, socket := range slices.Backward(sockets) {
		errs = append(errs, socket.unlink())
	}
	var servers sync.WaitGroup
	for _, socket := range sockets {
		servers.Go(socket.drain)
	}
	for _, p := range s.Plugins { // Those without an endpoint have no socket.
		servers.Go(p.Server.GracefulStop)
	}
	drained := make(chan struct{})
	go func() {
		servers.Wait()
		close(drained)
	}()
	select {
	case <-drained:
	case <-time.After(s.Drain):
		for _, socket := range sockets {
			socket.server.Stop()
		}
		for _, p := range s.Plugins {
			p.Server.Stop()
		}
		<-drained
	}
	return errors.Join(errs...)
}
