// Command bench measures a CSI node plugin against two floors of the same run: the API server and cert-manager alone, and the bare
// system calls. It prints a table, and writes it as JSON and as an SVG.
//
// Everything runs on this machine: a control plane (see test/cluster), the plugin, and the load. Other drivers that listen on a CSI
// socket are measured in the same run, with the same attributes; they must use the same control plane, so it is given by --kubeconfig.
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
	json, svg  string
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
	flag.StringVar(&o.kubeconfig, "kubeconfig", "", "of a control plane that runs, with an issuer `ca` in the namespace `bench`; empty: start one")
	flag.Var(o.others, "socket", "name=path: measure the driver on this CSI socket, too; may be repeated")
	flag.Var(o.attributes, "attribute", "key=value: a volume attribute to add or change; may be repeated")
	flag.IntVar(&o.volumes, "volumes", 1000, "how many volumes to publish and hold")
	flag.IntVar(&o.atOnce, "at-once", 50, "how many calls are under way at a time")
	flag.IntVar(&o.serial, "serial", 60, "how many publishes one after the other")
	flag.IntVar(&o.rounds, "rounds", 3, "how often the rate is measured: the medians count")
	flag.DurationVar(&o.idle, "idle", 30*time.Second, "for how long a driver is watched that has nothing to do")
	flag.StringVar(&o.json, "json", "", "file for the numbers")
	flag.StringVar(&o.svg, "svg", "", "file for the drawing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, o)
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
	r, err := measure(ctx, o, dir)
	if err != nil {
		return err
	}
	r.print(os.Stdout)
	return r.save(o)
}

// measure measures what there is to measure, floors and drivers by turns: what else the machine does meets them all.
func measure(ctx context.Context, o options, dir string) (r report, err error) {
	if r.SystemCalls, err = systemCalls(dir); err != nil {
		return r, err
	}
	if r.Unpublish, err = (&bench{options: o}).bareUnpublish(dir); err != nil {
		return r, err
	}
	if o.mayfly != "" {
		if r.Local, err = localRate(ctx, o, dir); err != nil {
			return r, err
		}
		if r.Push, err = pushes(ctx, o, dir); err != nil {
			return r, fmt.Errorf("CA certificates: %w", err)
		}
	}
	drivers, err := start(ctx, o, dir)
	defer func() {
		for _, d := range drivers {
			err = errors.Join(err, d.stop())
		}
	}()
	if err != nil {
		return r, err
	}
	api, err := newAPI(ctx, o.kubeconfig)
	if err != nil {
		return r, err
	}
	b := bench{options: o, api: api, drivers: drivers}
	return r, b.run(ctx, &r)
}
