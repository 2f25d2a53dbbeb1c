// Package driver is the node plugin: the CSI services that the kubelet calls, and the way from a call to a certificate in
// a pod.
//
// It alone knows the order of the steps, which the packages below it are (publish.go), when a volume is looked at next
// (schedule.go), and the CSI status codes (status.go).
package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/issue"
	"github.com/mayfly-csi/mayfly/driver/pod"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/resolve"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/trust"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// Config is what a driver is made of. All fields are required but those that say otherwise.
type Config struct {
	Names       []Name // At least one.
	Version     string
	NodeName    string
	KubeletRoot string // Empty: don't register with a kubelet, and accept targets anywhere.
	StateDir    string // Where the volumes' tmpfs are mounted. Volumes in others under KubeletRoot stay where they are.

	Signer       signer.Signer
	Defaults     volume.Defaults
	KeepRequests int           // How many finished requests a volume keeps at its signer.
	Trust        trust.Sources // nil: volumes can have their issuer's CA certificates alone.

	RenewalsPerSecond float64 // How fast volumes that are overdue are renewed; 0: 10.

	Profiles  resolve.Profiles // nil: there are none.
	Pods      pod.API          // nil: they can't be read.
	WatchPods bool             // For annotations that ask for renewals.

	Events  event.Sender          // Where pods are told of trouble; nil: nowhere.
	Metrics prometheus.Registerer // nil: nowhere.
	Log     *slog.Logger
}

// A Name is one under which the driver serves: for the kubelet each is a CSI driver of its own, and a volume's attributes
// mean what they mean under its name. All share one store of volumes.
type Name struct {
	Name     string // As in the CSIDriver object.
	Endpoint string // Path of the CSI socket.
}

const (
	defaultRenewalsPerSecond = 10
	concurrentRenewals       = 32
	// firstTimeout is how long a publish call waits for the signer before anybody was told that it waits.
	firstTimeout = 15 * time.Second
	// publishTimeout is how long any publish call waits. The kubelet, which would wait for 2 minutes, can't unpublish the
	// volume of a pod that goes before the call has ended.
	publishTimeout = time.Minute
	// renewalTimeout is how long one renewal waits for its signer. The attempt goes on later.
	renewalTimeout = time.Minute
	// briefTimeout is how long a try in the background waits for a pod that has no certificate yet: the kubelet's calls
	// wait longer.
	briefTimeout = 3 * time.Second
	// drainTimeout is how long calls in flight have to end after a signal, well under a pod's grace period of 30 s.
	drainTimeout = 10 * time.Second
)

// A Driver is a node plugin. Make one with [New].
type Driver struct {
	Config

	store   *store.Store
	queue   *renew.ClockQueue
	issuer  *issue.Issuer
	trust   *trust.Updater
	wanted  pod.Wanted
	events  *event.Queue
	resolve *resolve.Resolver
	metrics *metrics

	background sync.WaitGroup
	stopping   chan struct{} // Closed when Run is told to stop: calls that only wait need not.
	planning   sync.Mutex    // See schedule.
}

// New makes a driver. Run recovers its volumes and serves; run it once.
func New(config Config) (d *Driver, err error) {
	if config.RenewalsPerSecond == 0 {
		config.RenewalsPerSecond = defaultRenewalsPerSecond
	}
	d = &Driver{Config: config, stopping: make(chan struct{})}
	if d.store, err = store.New(config.StateDir, config.Log); err != nil {
		return nil, err
	}
	if d.queue, err = renew.NewClockQueue(config.RenewalsPerSecond, concurrentRenewals, d.due); err != nil {
		return nil, err
	}
	if d.events, err = event.NewQueue(config.Events, config.Log); err != nil {
		return nil, errors.Join(err, d.queue.Close())
	}
	if d.metrics, err = newMetrics(d, config.Metrics); err != nil {
		return nil, errors.Join(err, d.queue.Close(), d.events.Close())
	}
	d.trust, err = trust.NewUpdater(config.Trust, d.store, d.events, config.Log, d.metrics.updated.Inc)
	if err != nil {
		return nil, errors.Join(err, d.queue.Close(), d.events.Close())
	}
	d.issuer = &issue.Issuer{
		Signer: config.Signer, KeepRequests: config.KeepRequests, Events: d.events, Metrics: d.metrics, Log: config.Log,
	}
	d.resolve = &resolve.Resolver{
		Flags: config.Defaults, Profiles: config.Profiles, Gates: pod.NewGates(config.Pods, d.scheduleID),
		Events: d.events, Log: config.Log,
	}
	return d, nil
}

// Run serves until ctx ends, then drains: calls in flight end or are cancelled, the sockets go, the mounts stay.
func (d *Driver) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, d.close()) }()
	defer context.AfterFunc(ctx, func() {
		close(d.stopping)
		d.trust.Stop()
	})()
	unlock, err := d.store.Lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	defer d.issuer.Close() // It writes records: no other process has the state directory yet.
	defer d.resolve.Gates.Close()
	if err := d.recover(); err != nil {
		return fmt.Errorf("recover the volumes in %s: %w", d.StateDir, err)
	}
	working, stop := context.WithCancel(context.Background())
	defer d.background.Wait()
	defer stop()
	d.startQueues(working)
	return d.serve(ctx)
}

// startQueues starts what works in the background until ctx ends.
func (d *Driver) startQueues(ctx context.Context) {
	d.start(ctx, "no certificate is renewed any more", d.queue.Run)
	d.start(ctx, "no volume gets other CA certificates any more", d.trust.Run)
	d.start(ctx, "no pod gets Events any more", d.events.Run)
	if d.Profiles != nil {
		d.start(ctx, "the profiles are not read any more", d.Profiles.Run)
	}
	if d.WatchPods && d.Pods != nil {
		d.start(ctx, "the annotations of pods are not read any more", d.watchRenewals)
	}
}

// start runs something in the background, and logs its end if that comes early.
func (d *Driver) start(ctx context.Context, consequence string, run func(context.Context) error) {
	d.background.Go(func() {
		if err := run(ctx); err != nil && ctx.Err() == nil {
			d.Log.Error(consequence, "error", err)
		}
	})
}

// close ends what New made.
func (d *Driver) close() error {
	return errors.Join(d.trust.Close(), d.events.Close(), d.queue.Close())
}

// recover goes on with the volumes that the state directory has.
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

// now returns the wall clock: what certificates are compared with, and what a record keeps.
func now() time.Time { return time.Now().Round(0) }
