package pod

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// API reads the node's pods from the API server.
type API interface {
	// Await waits until ready returns nil for the pod's state, and returns that state. When ctx ends before, it
	// returns the last error of ready.
	Await(ctx context.Context, pod signer.Pod, ready func(volume.PodState) error) (volume.PodState, error)
	// Renewals calls renew for pods whose annotation asks for new certificates at a time, and fail when the pods can't
	// be watched, until ctx ends.
	Renewals(ctx context.Context, renew func(pod signer.Pod, at time.Time, err error), fail func(error)) error
	// RenewAt reads when a pod's annotation asks for new certificates; zero: it does not, or the annotation is invalid.
	RenewAt(ctx context.Context, pod signer.Pod) (at time.Time, invalid, err error)
}

// ErrNoAPI is the error where there is no API server to ask.
var ErrNoAPI = errors.New("this driver can't read pods: it has no API server to ask")

// Gates waits until pods fulfil what their certificates depend on: the gates of volumes, and IPs for names. Make one
// with [NewGates] and close it.
type Gates struct {
	api    API // nil: pods can't be read.
	opened func(id string)

	ctx  context.Context // Ends the waits in the background.
	stop context.CancelFunc
	wait sync.WaitGroup

	mu      sync.Mutex
	volumes map[string]*gate
}

// A gate is the state of one volume.
type gate struct {
	blocked error              // Why the certificate can't be requested yet; nil: nothing is known to block it.
	cancel  context.CancelFunc // Ends the wait in the background; nil: there is none.
	open    bool               // The wait in the background succeeded.
}

// NewGates makes gates that call opened when a wait in the background succeeds. A nil api can't read pods.
func NewGates(api API, opened func(id string)) *Gates {
	g := &Gates{api: api, opened: opened, volumes: map[string]*gate{}}
	g.ctx, g.stop = context.WithCancel(context.Background())
	return g
}

// Close ends all waits.
func (g *Gates) Close() {
	g.stop()
	g.wait.Wait()
}

// CanRead reports whether pods can be read.
func (g *Gates) CanRead() bool { return g.api != nil }

// Await waits until a certificate of the volume can be requested, its first or another, and returns the pod's IPs.
func (g *Gates) Await(ctx context.Context, v volume.Volume, first bool) (ips []string, err error) {
	if g.api == nil {
		return nil, ErrNoAPI
	}
	return g.await(ctx, g.find(v.ID), v, first)
}

func (g *Gates) await(ctx context.Context, of *gate, v volume.Volume, first bool) (ips []string, err error) {
	state, err := g.api.Await(ctx, v.Pod, func(pod volume.PodState) error {
		return g.setBlocked(of, v.Awaits(pod, first))
	})
	return state.IPs, err
}

// Check reads the pod, and returns why the first certificate can't be requested yet, or why the pod can't be read.
func (g *Gates) Check(ctx context.Context, v volume.Volume) (blocked, unread error) {
	of := g.find(v.ID)
	_, unread = g.api.Await(ctx, v.Pod, func(pod volume.PodState) error {
		blocked = g.setBlocked(of, v.Awaits(pod, true))
		return nil
	})
	if unread != nil {
		_ = g.setBlocked(of, unread)
	}
	return blocked, unread
}

// Watch waits in the background until the first certificate can be requested. It does nothing if it waits already.
func (g *Gates) Watch(v volume.Volume) {
	g.mu.Lock()
	defer g.mu.Unlock()
	of := g.state(v.ID)
	if g.api == nil || of.cancel != nil || g.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(g.ctx)
	of.cancel = cancel
	g.wait.Go(func() {
		defer cancel()
		if _, err := g.await(ctx, of, v, true); err != nil {
			return // Forget or Close ended the wait.
		}
		g.mu.Lock()
		of.open = true
		g.mu.Unlock()
		g.opened(v.ID)
	})
}

// Open reports whether the volume's wait in the background succeeded.
func (g *Gates) Open(id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	of := g.volumes[id]
	return of != nil && of.open
}

// BlockedBy returns why the certificate could not be requested at the last check; nil: nothing is known to block it.
func (g *Gates) BlockedBy(id string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if of := g.volumes[id]; of != nil {
		return of.blocked
	}
	return nil
}

// Forget ends the volume's wait and removes its state.
func (g *Gates) Forget(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if of := g.volumes[id]; of != nil && of.cancel != nil {
		of.cancel()
	}
	delete(g.volumes, id)
}

// setBlocked records what blocks a volume, and returns it.
func (g *Gates) setBlocked(of *gate, by error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	of.blocked = by
	return by
}

// find returns the state of a volume, a new one if there is none.
func (g *Gates) find(id string) *gate {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state(id)
}

// state returns the state of a volume, a new one if there is none. g.mu must be held.
func (g *Gates) state(id string) *gate {
	if g.volumes[id] == nil {
		g.volumes[id] = &gate{}
	}
	return g.volumes[id]
}
