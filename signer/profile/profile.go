// Package profile keeps up to date what a platform team sets for the volumes of its cluster, in a ConfigMap. What that
// says is for its reader to parse: node plugin and controller look at different parts of it.
package profile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/mayfly-csi/mayfly/signer/api"
)

// A ConfigMap has the profiles of a ConfigMap as it was last valid. One watch of this one object keeps them up to
// date. P is the profiles; the zero P has none.
type ConfigMap[P any] struct {
	namespace, name string
	core            rest.Interface
	log             *slog.Logger

	parse   func(data map[string]string) (*P, error)
	known   chan struct{} // Closed when there are profiles.
	changed func(*P)

	mu       sync.Mutex
	seen     bool // There was one.
	profiles *P
	err      error  // Why there are none, or what is wrong with later ones.
	unseen   string // Why they could not be read again, as it was told last.
}

// New makes a reader of the ConfigMap with that namespace and name, whose data parse parses. Run reads it.
func New[P any](
	config *rest.Config, namespace, name string, parse func(data map[string]string) (*P, error), log *slog.Logger,
) (*ConfigMap[P], error) {
	core, err := api.Core(config)
	if err != nil {
		return nil, err
	}
	return &ConfigMap[P]{
		namespace: namespace, name: name, core: core, parse: parse, log: log, known: make(chan struct{}),
		err: errors.New("the API server did not answer yet"),
	}, nil
}

// Run keeps the profiles up to date until ctx ends. It calls changed, which may be nil, with all profiles before Get
// returns them. Within changed no method may be called, and it must not block.
func (c *ConfigMap[P]) Run(ctx context.Context, changed func(*P)) error {
	c.changed = changed
	informer, err := api.Inform(api.One(c.core, "configmaps", c.namespace, c.name), &api.ConfigMap{}, api.Handler{
		Set: c.update, Unset: c.deleted, Fail: c.reportError,
	})
	if err != nil {
		return err
	}
	var first sync.WaitGroup
	defer first.Wait()
	first.Go(func() {
		if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) && len(informer.GetStore().List()) == 0 {
			c.absent()
		}
	})
	informer.RunWithContext(ctx)
	return nil
}

// update takes the profiles, if they are valid.
func (c *ConfigMap[P]) update(object any) {
	cm, ok := object.(*api.ConfigMap)
	if !ok {
		return
	}
	profiles, err := c.parse(cm.Data)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen, c.err = true, err
	if err != nil {
		c.log.Error("the profiles are not understood: what was known before counts",
			"configMap", c.namespace+"/"+c.name, "error", err)
		return
	}
	c.log.Info("profiles read", "configMap", c.namespace+"/"+c.name, slog.Any("", profiles))
	c.set(profiles)
}

// set replaces the profiles; c.mu must be held.
func (c *ConfigMap[P]) set(profiles *P) {
	if c.changed != nil {
		c.changed(profiles)
	}
	if c.profiles == nil {
		close(c.known)
	}
	c.profiles = profiles
}

// deleted keeps the profiles of a ConfigMap that was deleted: it may be about to be made again.
func (c *ConfigMap[P]) deleted(any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.profiles == nil { // It was never understood.
		c.err = nil
		c.set(new(P))
		return
	}
	c.err = errors.New("it was deleted")
	c.log.Error("the profiles are gone: what was known before counts",
		"configMap", c.namespace+"/"+c.name)
}

// absent sets no profiles, if there has been no ConfigMap so far.
func (c *ConfigMap[P]) absent() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.seen {
		c.err = nil
		c.set(new(P))
	}
}

func (c *ConfigMap[P]) reportError(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.profiles == nil {
		c.err = err
	} else if c.unseen != err.Error() { // The informer tries again and again.
		c.unseen = err.Error()
		c.log.Warn("the profiles can't be read again: what was known counts",
			"configMap", c.namespace+"/"+c.name, "error", err)
	}
}

// Get returns the profiles once they have been read: a ConfigMap that does not exist has none. When ctx ends
// before, the error says why.
func (c *ConfigMap[P]) Get(ctx context.Context) (*P, error) {
	select {
	case <-c.known:
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.profiles == nil {
		return nil, fmt.Errorf("read the driver's profiles from ConfigMap %s/%s: %w", c.namespace, c.name, c.err)
	}
	return c.profiles, nil
}

// Valid reports whether the ConfigMap as it is now is valid.
func (c *ConfigMap[P]) Valid() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err == nil
}
