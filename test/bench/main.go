// Command bench measures a CSI node plugin against floors of the same run: the API server and cert-manager alone, and
// a node plugin that makes the bare system calls. It prints a table, and writes it as JSON, as an SVG and into a
// document.
//
// Everything runs on this machine: a control plane (see test/cluster), the plugin, and the load. Other drivers that
// listen on a CSI socket are measured in the same run, with the same attributes; they must use the same control plane,
// so it is given by --kubeconfig.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

type options struct {
	mayfly     string
	kubeconfig string
	others     flagMap // Sockets by the names of their drivers.
	attributes flagMap
	volumes    int
	atOnce     int
	serial     int
	rounds     int
	idle       time.Duration
	dir        string
	bareNode   string

	json, svg, document string
}

// A flagMap is a flag that may be repeated, each time with key=value.
type flagMap map[string]string

func (m flagMap) String() string { return "" }

func (m flagMap) Set(s string) error {
	key, value, ok := strings.Cut(s, "=")
	if !ok {
		return errors.New("want key=value")
	}
	m[key] = value
	return nil
}

func main() {
	o := options{others: flagMap{}, attributes: flagMap{
		// Every driver of cert-manager's users knows these.
		"csi.cert-manager.io/issuer-name":   "ca",
		"csi.cert-manager.io/dns-names":     "${POD_NAME}.${POD_NAMESPACE}.svc",
		"csi.cert-manager.io/key-algorithm": "ECDSA",
		"csi.cert-manager.io/key-size":      "256",
		"csi.cert-manager.io/duration":      "24h",
	}}
	flag.StringVar(&o.mayfly, "mayfly", "", "the binary to measure; empty: only --socket")
	flag.StringVar(&o.kubeconfig, "kubeconfig", "",
		"of a control plane that runs, with an issuer `ca` in the namespace `bench`; empty: start one")
	flag.Var(o.others, "socket", "name=path: measure the driver on this CSI socket, too; may be repeated")
	flag.Var(o.attributes, "attribute", "key=value: a volume attribute to add or change; may be repeated")
	flag.IntVar(&o.volumes, "volumes", 1000, "how many volumes to publish and hold, a part in each round")
	flag.IntVar(&o.atOnce, "at-once", 50, "how many calls are under way at a time")
	flag.IntVar(&o.serial, "serial", 60, "how many publishes one after the other")
	flag.IntVar(&o.rounds, "rounds", 5, "how often each number is measured: the medians count")
	flag.DurationVar(&o.idle, "idle", 3*time.Second, "how long a driver that has nothing to do is watched in each round")
	flag.StringVar(&o.dir, "dir", "", "directory for volumes, sockets and floors; empty: a tmpfs of the bench's own")
	flag.StringVar(&o.json, "json", "", "file for the numbers")
	flag.StringVar(&o.svg, "svg", "", "file for the drawing")
	flag.StringVar(&o.document, "document", "", "file with a place for the table")
	flag.StringVar(&o.bareNode, "bare-node", "",
		"be the node plugin that is the floor, with its volumes in this directory: the command starts itself so")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	do := run
	if o.bareNode != "" {
		do = serveBare
	}
	err := do(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if o.kubeconfig == "" {
		at := filepath.Join(dir, "control-plane")
		defer func() { err = errors.Join(err, stopControlPlane(ctx, at)) }()
		if o.kubeconfig, err = startControlPlane(ctx, at); err != nil {
			return err
		}
	}
	place := filepath.Join(dir, "place")
	unmount, err := mountPlace(place, o.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmount()) }()
	o.dir = place
	r, err := measure(ctx, o)
	if err != nil {
		return err
	}
	fmt.Print(r.markdown())
	return r.save(o)
}

// measure measures what there is to measure, floors and drivers by turns: what else the machine does meets them all.
func measure(ctx context.Context, o options) (r report, err error) {
	b := &bench{options: o, measured: measured{}, refused: map[string]int{}}
	group, remove := b.newCgroup()
	defer func() { err = errors.Join(err, remove()) }()
	if b.bare, err = startBare(filepath.Join(o.dir, "bare"), group); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, b.bare.stop()) }()
	if o.mayfly != "" {
		for _, alone := range []func(context.Context) error{b.parse, b.localSigner, b.push} {
			if err := alone(ctx); err != nil {
				return r, err
			}
		}
	}
	stop, err := b.start(ctx)
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return r, err
	}
	for range o.rounds {
		if err := b.oneByOne(ctx); err != nil {
			return r, err
		}
	}
	for _, step := range []func(context.Context) error{b.fill, b.hold, b.waits, b.restart, b.empty} {
		if err := step(ctx); err != nil {
			return r, err
		}
	}
	return b.report()
}

// report is what was measured, with what must be known of the run.
func (b *bench) report() (report, error) {
	machine, err := b.machine()
	if err != nil {
		return report{}, err
	}
	var drivers, notes []string
	for _, d := range b.drivers {
		drivers = append(drivers, d.name)
		notes = append(notes, fmt.Sprintf("%s: %d calls had to be made again.", d.name, b.refused[d.name]))
	}
	return newReport(b.measured, machine, drivers, append(notes, b.notes...)), nil
}
