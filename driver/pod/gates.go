package pod

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// API tells what the API server knows of the node's pods.
type API interface {
	// Await returns the pod's state when ready has nothing against it. When ctx ends before, the error is what ready
	// had last.
	Await(ctx context.Context, pod signer.Pod, ready func(volume.PodState) error) (volume.PodState, error)
	// Renewals calls renew for pods that are to get new certificates at a time, and fail when it can't tell, until ctx
	// ends.
	Renewals(ctx context.Context, renew func(pod signer.Pod, at time.Time, err error), fail func(error)) error
}

// ErrNoAPI is the error where there is no API server to ask.
var ErrNoAPI = errors.New("this driver can't read pods: it has no API server to ask")

// Gates waits for what pods must have before their certificates are asked for: the gates of volumes, and IPs for names.
// Run it once.
type Gates struct {
	api    API // nil: pods can't be read.
	opened func(id string)

	ctx  context.Context // Of the waits in the background.
	stop context.CancelFunc
	wait sync.WaitGroup

	mu      sync.Mutex
	volumes map[string]*gate
}

// A gate is the state of one volume.
type gate struct {
	blocked error              // Why the certificate can't be asked for.
	cancel  context.CancelFunc // Ends the wait in the background; nil: there is none.
	open    bool               // That has ended well.
}

// NewGates makes gates that call opened when a wait in the background has ended well.
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

// Await waits until the certificate of the volume can be asked for, its first one or another, and returns the pod's IPs.
func (g *Gates) Await(ctx context.Context, v volume.Volume, first bool) (ips []string, err error) {
	if g.api == nil {
		return nil, ErrNoAPI
	}
	state, err := g.api.Await(ctx, v.Pod, func(pod volume.PodState) error { return g.block(v.ID, v.Awaits(pod, first)) })
	return state.IPs, err
}

// Look looks at the pod once, and returns why the first certificate can't be asked for, or why the pod can't be read.
func (g *Gates) Look(ctx context.Context, v volume.Volume) (blocked, unread error) {
	_, unread = g.api.Await(ctx, v.Pod, func(pod volume.PodState) error {
		blocked = g.block(v.ID, v.Awaits(pod, true))
		return nil
	})
	if unread != nil {
		_ = g.block(v.ID, unread)
	}
	return blocked, unread
}

// Watch waits in the background until the first certificate can be asked for. It does nothing where it waits already.
func (g *Gates) Watch(v volume.Volume) {
	g.mu.Lock()
	defer g.mu.Unlock()
	of := g.of(v.ID)
	if of.cancel != nil || g.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(g.ctx)
	of.cancel = cancel
	g.wait.Go(func() {
		defer cancel()
		if _, err := g.Await(ctx, v, true); err != nil {
			return // The volume or the driver has ended.
		}
		g.mu.Lock()
		of.open = true
		g.mu.Unlock()
		g.opened(v.ID)
	})
}

// Open reports whether a wait in the background has ended well.
func (g *Gates) Open(id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	of := g.volumes[id]
	return of != nil && of.open
}

// BlockedBy returns why the certificate can't be asked for, as it was last; nil: nothing is known against it.
func (g *Gates) BlockedBy(id string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if of := g.volumes[id]; of != nil {
		return of.blocked
	}
	return nil
}

// Forget ends the volume's wait.
func (g *Gates) Forget(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if of := g.volumes[id]; of != nil && of.cancel != nil {
		of.cancel()
	}
	delete(g.volumes, id)
}

// block notes what blocks the volume, and returns it.
func (g *Gates) block(id string, by error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.of(id).blocked = by
	return by
}

// of returns the state of a volume. The lock must be held.
func (g *Gates) of(id string) *gate {
	if g.volumes[id] == nil {
		g.volumes[id] = &gate{}
	}
	return g.volumes[id]
}
