// Package driver is the node plugin: the CSI services that the kubelet calls, and the line from a call to a certificate in a pod.
//
// It alone knows the order of the steps, which the packages below it are, and it alone chooses CSI status codes.
package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// Config is what a driver is made of. All fields are required but those that say otherwise.
type Config struct {
	Names       []Name // At least one.
	Version     string
	NodeName    string
	KubeletRoot string // Empty: don't register with a kubelet, and accept targets anywhere.
	StateDir    string // Where the volumes' tmpfs are mounted. Those in other state directories under KubeletRoot stay where they are.

	Signer       signer.Signer
	Defaults     volume.Defaults
	KeepRequests int   // How many finished requests a volume keeps at its signer.
	Trust        Trust // nil: volumes can have their issuer's CA certificates alone.

	RenewalsPerSecond float64 // How fast volumes that are overdue are renewed; 0: 10.

	Profiles  Profiles // nil: there are none.
	Pods      Pods     // nil: they can't be read.
	WatchPods bool     // For annotations that ask for renewals.

	Events  Events                // Where pods are told of trouble; nil: nowhere.
	Metrics prometheus.Registerer // nil: nowhere.
	Log     *slog.Logger
}

// A Name is one under which the driver serves: for the kubelet each is a CSI driver of its own, and a volume's attributes mean what they mean under its
// name. All hold their volumes together.
type Name struct {
	Name     string // As in the CSIDriver object.
	Endpoint string // Path of the CSI socket.
}

// Events tells a pod's author what went wrong while the pod runs.
type Events interface {
	Warn(ctx context.Context, pod signer.Pod, reason, message string) error
}

const (
	defaultRenewalsPerSecond = 10
	concurrentRenewals       = 32
	// firstPatience is how long a publish call waits for the signer before anybody was told that it waits.
	firstPatience = 15 * time.Second
	// publishPatience is how long any publish call waits. The kubelet, which would wait for 2 minutes, can't unpublish the volume of a pod that goes
	// before the call has ended.
	publishPatience = time.Minute
	// renewalPatience is how long one renewal waits for its signer. The attempt goes on later.
	renewalPatience = time.Minute
	// briefPatience is how long a try in the background waits for a pod that has no certificate yet: the kubelet's calls wait longer.
	briefPatience = 3 * time.Second
	// drainTimeout is how long calls in flight have to end after a signal, well under a pod's grace period of 30 s.
	drainTimeout = 10 * time.Second
)

// A Driver is a node plugin. Make one with [New].
type Driver struct {
	Config

	metrics *metrics
	clock   *renew.WallClock
	queue   *renew.Queue
	loose   sync.WaitGroup // Work that an answer did not wait for.

	pushes, warnings *sideline // Other CA certificates for pods that have a pair, and what pods are told of their sources.

	base context.Context
	end  context.CancelFunc

	stopping chan struct{} // Closed when Run is told to stop: calls that only wait need not.

	mu       sync.Mutex
	held     map[string]*held
	renewals map[string]time.Time // What annotations ask for, by the pod's UID.
}

// New is a driver that has taken up the volumes in its state directory. Run it once.
func New(config Config) (*Driver, error) {
	if config.RenewalsPerSecond == 0 {
		config.RenewalsPerSecond = defaultRenewalsPerSecond
	}
	if err := os.MkdirAll(config.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	clock, err := renew.NewWallClock()
	if err != nil {
		return nil, err
	}
	d := &Driver{Config: config, clock: clock, held: map[string]*held{}, renewals: map[string]time.Time{}, stopping: make(chan struct{})}
	d.base, d.end = context.WithCancel(context.Background())
	d.queue = renew.NewQueue(clock, config.RenewalsPerSecond, concurrentRenewals, d.due)
	if err := d.beside(); err != nil {
		return nil, errors.Join(err, clock.Close())
	}
	if d.metrics, err = newMetrics(d, config.Metrics); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// Run serves until ctx ends, then drains: calls in flight end or are cancelled, the sockets go, the mounts stay.
func (d *Driver) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, d.close()) }()
	defer d.loose.Wait()
	defer d.end()
	defer d.leaveAll()
	defer context.AfterFunc(ctx, func() { close(d.stopping) })()
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := d.recover(); err != nil {
		return fmt.Errorf("take up the volumes in %s: %w", d.StateDir, err)
	}
	d.keepUp("no certificate is renewed any more", d.queue.Run)
	d.keepUp("no volume gets other CA certificates any more", d.pushes.Run)
	d.keepUp("no pod is told of its CA certificates any more", d.warnings.Run)
	if d.Profiles != nil {
		d.keepUp("the profiles are not looked at any more", d.Profiles.Run)
	}
	if d.WatchPods && d.Pods != nil {
		d.keepUp("the annotations of pods are not looked at any more", d.watchRenewals)
	}
	return d.serve(ctx)
}

// lock makes the state directory that of this process alone, until it ends (flock(2)). It waits for the process that has
// it: a predecessor that is still ending, or another node plugin.
func (d *Driver) lock(ctx context.Context) (unlock func() error, err error) {
	dir, err := os.Open(d.StateDir)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	for waits := false; ; waits = true {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return dir.Close, nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, errors.Join(fmt.Errorf("lock the state directory %s: %w", d.StateDir, err), dir.Close())
		case !waits:
			d.Log.Warn("waiting for another node plugin with the same state directory to end; each needs its own (--state-dir)", "path", d.StateDir)
		}
		select {
		case <-time.After(time.Second): // A lock that can be had tells nobody.
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), dir.Close())
		}
	}
}

// keepUp does something until the driver ends.
func (d *Driver) keepUp(otherwise string, run func(context.Context) error) {
	d.loose.Go(func() {
		if err := run(d.base); err != nil && d.base.Err() == nil {
			d.Log.Error(otherwise, "error", err)
		}
	})
}

// close frees the queues' clocks.
func (d *Driver) close() error {
	return errors.Join(d.clock.Close(), d.pushes.clock.Close(), d.warnings.clock.Close())
}

// now is the wall clock: what certificates are compared with, and what a record keeps.
func now() time.Time { return time.Now().Round(0) }
