// Package pod reads from the API server what the kubelet does not pass to a CSI driver: a pod's IPs, conditions and
// annotations.
//
// Pods whose volumes need none of these are not read.
package pod

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/api"
)

// A Reader reads the pods of one node.
type Reader struct {
	core rest.Interface
	meta metadata.Interface
	node string
}

// New makes a reader of the node's pods.
func New(config *rest.Config, node string) (*Reader, error) {
	core, err := api.Core(config)
	if err != nil {
		return nil, err
	}
	meta, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for pods: %w", err)
	}
	return &Reader{core: core, meta: meta, node: node}, nil
}

// Await waits until ready returns nil for the pod's state, and returns that state. When ctx ends before, it returns
// the last error of ready, or why the pod could not be read. It lists and watches this one pod by its name.
func (r *Reader) Await(
	ctx context.Context, of signer.Pod, ready func(volume.PodState) error,
) (volume.PodState, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &wait{of: of, ready: ready, end: cancel, err: fmt.Errorf("read pod %s/%s: not found", of.Namespace, of.Name)}
	informer, err := api.Inform(api.One(r.core, "pods", of.Namespace, of.Name), &api.Pod{}, api.Handler{
		Set: w.set, Unset: func(any) { w.fail(errors.New("it was deleted")) }, Fail: w.fail,
	})
	if err != nil {
		return volume.PodState{}, err
	}
	informer.RunWithContext(ctx)
	return w.result()
}

// A wait is one call of Await.
type wait struct {
	of    signer.Pod
	ready func(volume.PodState) error
	end   func()

	mu    sync.Mutex
	state volume.PodState
	err   error
}

// set handles a new state of the pod.
func (w *wait) set(object any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p, ok := object.(*api.Pod)
	switch {
	case !ok || w.err == nil:
		return
	case string(p.UID) != w.of.UID:
		w.err = fmt.Errorf("pod %s/%s is another one now", w.of.Namespace, w.of.Name)
		return
	}
	w.state = state(p)
	if w.err = w.ready(w.state); w.err == nil {
		w.end()
	}
}

// fail records why the pod can't be read, unless the wait has succeeded.
func (w *wait) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		w.err = fmt.Errorf("read pod %s/%s: %w", w.of.Namespace, w.of.Name, err)
	}
}

// result returns the last state and what is wrong with it.
func (w *wait) result() (volume.PodState, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state, w.err
}

// state returns the part of the pod that volumes may need.
func state(p *api.Pod) volume.PodState {
	s := volume.PodState{Conditions: map[string]string{}, Annotations: p.Annotations}
	for _, ip := range p.Status.PodIPs {
		s.IPs = append(s.IPs, ip.IP)
	}
	for _, c := range p.Status.Conditions {
		s.Conditions[c.Type] = c.Status
	}
	return s
}
