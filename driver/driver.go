// Package driver is the node plugin: it brings certificates into pods.
//
// The packages below it do the steps. This one decides their order (publish.go) and when a volume is due (schedule.go).
package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/issue"
	"github.com/mayfly-csi/mayfly/driver/pod"
	"github.com/mayfly-csi/mayfly/driver/registration"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/resolve"
	"github.com/mayfly-csi/mayfly/driver/service"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/trust"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// Config configures a driver. All fields are required but those that say otherwise.
type Config struct {
	Names       []Name // At least one.
	Version     string
	NodeName    string
	KubeletRoot string // Empty: don't register with a kubelet, and accept targets anywhere.
	StateDir    string // Where new volumes' tmpfs are mounted.

	Signer       signer.Signer
	Defaults     volume.Defaults
	KeepRequests *int          // How many finished requests of a volume are not deleted; nil: its dialect says.
	Trust        trust.Sources // nil: volumes can have only their issuer's CA certificates.

	RenewalsPerSecond float64 // How fast volumes that are overdue are renewed; 0: 10.

	Profiles  resolve.Profiles // nil: there are none.
	Pods      pod.API          // nil: they can't be read.
	WatchPods bool             // Watch for annotations that ask for renewals; else they are read where a volume waits.

	Events  event.Sender          // Sends Events to pods; nil: none are sent.
	Metrics prometheus.Registerer // nil: metrics are not registered.
	Log     *slog.Logger
}

// A Name is a name under which the driver serves: for the kubelet each is a CSI driver of its own, and a volume's
// attributes are parsed in the dialect of its name. All share one store of volumes.
type Name struct {
	Name     string       // As in the CSIDriver object.
	Dialect  spec.Dialect // Empty: what the name says.
	Endpoint string       // Path of the CSI socket; empty: Run serves on none, see [Driver.Plugins].
}

const (
	defaultRenewalsPerSecond = 10
	concurrentRenewals       = 64
	concurrentEnds           = 8 // How many ends of certificates are recorded at once.
	// firstTimeout is how long the first publish call of a volume waits for the signer.
	firstTimeout = 15 * time.Second
	// publishTimeout is how long any publish call waits. The kubelet would wait for 2 minutes, but can't unpublish the
	// volume of a deleted pod before the call has ended.
	publishTimeout = time.Minute
	// soon is how long before the next try of a volume that backs off a publish call waits for it. After an error the
	// kubelet would come back up to 2 minutes later.
	soon = 10 * time.Second
	// renewalTimeout is how long one renewal waits for its signer. The next try continues the attempt.
	renewalTimeout = time.Minute
	// briefTimeout is how long a try in the background waits for the signer if the pod has no certificate yet, for the
	// kubelet's calls wait longer, and if the issuer is silent.
	briefTimeout = 3 * time.Second
	// wishTimeout is how long a publish call waits for the annotations of its pod.
	wishTimeout = 2 * time.Second
	// answerTimeout is how long the answers of calls in flight may take after a stop, which cancels the calls.
	answerTimeout = time.Second
)

// A Driver is a node plugin. Make one with [New].
type Driver struct {
	Config

	clocks  renew.Clocks
	store   *store.Store
	queue   *renew.ClockQueue
	ends    *renew.ClockQueue // When certificates end.
	issuer  *issue.Issuer
	trust   *trust.Updater
	wanted  pod.Wanted
	events  *event.Queue
	resolve *resolve.Resolver
	server  *registration.Server
	service *service.Metrics

	background sync.WaitGroup
	stopping   context.Context // Ends with Run's context, and then cancels the calls in flight.
	stop       context.CancelFunc
	scheduling sync.Mutex // See schedule.
}

// New makes a driver. Run recovers its volumes and serves; run it once.
func New(config Config) (*Driver, error) { return NewWithClocks(config, renew.Clocks{}) }

// NewWithClocks makes a driver that goes by other clocks than those of the system.
func NewWithClocks(config Config, clocks renew.Clocks) (d *Driver, err error) {
	if config.RenewalsPerSecond == 0 {
		config.RenewalsPerSecond = defaultRenewalsPerSecond
	}
	config.Defaults.Node = config.NodeName
	d = &Driver{Config: config, clocks: clocks}
	d.stopping, d.stop = context.WithCancel(context.Background())
	if d.store, err = store.New(config.StateDir, clocks.Now, config.Log, config.Metrics); err != nil {
		return nil, err
	}
	if d.queue, err = clocks.NewQueue(config.RenewalsPerSecond, concurrentRenewals, d.due); err != nil {
		return nil, err
	}
	if d.ends, err = clocks.NewQueue(math.MaxFloat64, concurrentEnds, d.ended); err != nil {
		return nil, errors.Join(err, d.queue.Close())
	}
	if d.events, err = event.NewQueue(config.Events, clocks, config.Log); err != nil {
		return nil, errors.Join(err, d.queue.Close(), d.ends.Close())
	}
	d.trust, err = trust.NewUpdater(config.Trust, d.store, d.events, clocks, config.Log, config.Metrics)
	if err != nil {
		return nil, errors.Join(err, d.queue.Close(), d.ends.Close(), d.events.Close())
	}
	d.issuer = issue.New(issue.Config{
		Signer: config.Signer, KeepRequests: config.KeepRequests, Wanted: d.wanted.At, Due: d.schedule,
		Events: d.events, Clocks: clocks, Metrics: config.Metrics, Log: config.Log,
	})
	d.resolve = resolve.New(resolve.Config{
		Flags: config.Defaults, Profiles: config.Profiles, Gates: pod.NewGates(config.Pods, d.scheduleID),
		Events: d.events, Metrics: config.Metrics, Log: config.Log,
	})
	d.service = service.NewMetrics(config.Metrics)
	d.server = d.newServer()
	return d, nil
}

// Run serves until ctx ends. Then it cancels what is under way, which a later process continues, and returns when all
// of it has ended. Sockets are removed, mounts stay.
func (d *Driver) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, d.close()) }()
	defer d.stop()
	defer context.AfterFunc(ctx, d.stop)()
	unlock, err := d.store.Lock(ctx)
	switch {
	case errors.Is(err, context.Canceled): // A stop while it waited.
		return nil
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	defer d.issuer.Close() // It writes records: no other process has the state directory yet.
	defer d.resolve.Gates.Close()
	if err := d.recover(); err != nil {
		return fmt.Errorf("recover the volumes in %s: %w", d.StateDir, err)
	}
	working, stop := context.WithCancel(ctx)
	defer d.background.Wait()
	defer stop()
	d.startQueues(working)
	return d.serve(ctx)
}

// startQueues starts the queues and watches, which run until ctx ends.
func (d *Driver) startQueues(ctx context.Context) {
	d.start(ctx, "no certificate is renewed any more", d.queue.Run)
	d.start(ctx, "no end of a certificate is reported any more", d.ends.Run)
	d.start(ctx, "no volume gets other CA certificates any more", d.trust.Run)
	d.start(ctx, "no pod gets Events any more", d.events.Run)
	d.start(ctx, "volumes that the kubelet has forgotten are not looked for any more", d.lookForForgotten)
	if d.Profiles != nil {
		d.start(ctx, "the profiles are not read any more", func(ctx context.Context) error {
			return d.Profiles.Run(ctx, func(p *volume.Profiles) { d.trust.Distrust(p.Distrusted) })
		})
	} else {
		d.trust.Distrust(nil)
	}
	if d.WatchPods && d.Pods != nil {
		d.start(ctx, "the annotations of pods are not read any more", d.watchRenewals)
	}
}

// start calls run in the background, and logs the consequence if it fails before ctx ends.
func (d *Driver) start(ctx context.Context, consequence string, run func(context.Context) error) {
	d.background.Go(func() {
		if err := run(ctx); err != nil && ctx.Err() == nil {
			d.Log.Error(consequence, "error", err)
		}
	})
}

// close ends what New made.
func (d *Driver) close() error {
	return errors.Join(d.trust.Close(), d.events.Close(), d.ends.Close(), d.queue.Close())
}

// recover resumes the volumes of the state directory.
func (d *Driver) recover() error {
	ours := func(driver string) bool {
		return slices.ContainsFunc(d.Names, func(n Name) bool { return n.Name == driver })
	}
	found, err := d.store.Recover(d.KubeletRoot, ours)
	for _, v := range found {
		d.resume(v)
	}
	return err
}

// Plugins returns the plugins of all names. While Run runs, the caller may serve those that have no endpoint.
func (d *Driver) Plugins() []registration.Plugin { return d.server.Plugins }

// newServer makes the server of all names.
func (d *Driver) newServer() *registration.Server {
	server := &registration.Server{KubeletRoot: d.KubeletRoot, Drain: answerTimeout, Log: d.Log}
	for _, name := range d.Names {
		plugin := service.Plugin{
			Name: name.Name, Dialect: cmp.Or(name.Dialect, spec.DialectOf(name.Name)),
			Version: d.Version, NodeName: d.NodeName, KubeletRoot: d.KubeletRoot,
			Metrics: d.service, Publisher: d, Volumes: d.store, Clocks: d.clocks,
			BlockedBy: d.resolve.Gates.BlockedBy, Log: d.Log,
		}
		server.Plugins = append(server.Plugins,
			registration.Plugin{Name: name.Name, Endpoint: name.Endpoint, Server: plugin.NewServer()})
	}
	return server
}

// serve serves on the sockets of all names until ctx ends, and returns when the calls in flight have ended.
func (d *Driver) serve(ctx context.Context) error {
	d.Log.Info("starting", "version", d.Version, "node", d.NodeName, "volumes", len(d.store.All()))
	defer func() { d.Log.Info("stopped: mounts stay", "volumes", len(d.store.All())) }()
	return d.server.Serve(ctx)
}
