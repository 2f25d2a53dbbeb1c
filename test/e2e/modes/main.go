// Command modes measures how long a node plugin waits for a certificate in each of its modes, by the product's own signers on a real Kubernetes, in turns of one
// run, and what memory mayfly-controller takes in a cluster that is full.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/mayfly-csi/mayfly/test/cluster"
)

type options struct {
	dir, json     string
	rounds        int
	crowd, crowds int
	pods          int
}

func main() { cluster.Main("modes", run) }

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("modes", flag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", "", "directory of the cluster; if none runs there, one is started for the run")
	flags.StringVar(&o.json, "json", "", "file to write the numbers to")
	flags.IntVar(&o.rounds, "rounds", 200, "how many certificates to ask for one by one, in each mode")
	flags.IntVar(&o.crowd, "crowd", 200, "how many certificates to ask for at once, each for another pod")
	flags.IntVar(&o.crowds, "crowds", 3, "how many times to ask for them at once, in each mode")
	flags.IntVar(&o.pods, "pods", 10000, "how many pods with a volume, and as many requests of either kind of others, the cluster has when the controller's memory is read; 0: it is not")
	return o, flags.Parse(args)
}

func run(ctx context.Context, args []string) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	tell := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	c, giveBack, err := cluster.Borrow(ctx, o.dir, tell)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, giveBack()) }()
	s := &site{Cluster: c, tell: tell}
	if err := s.clear(ctx); err != nil { // What a run left behind that was killed.
		return err
	}
	defer func() { err = errors.Join(err, s.clear(context.WithoutCancel(ctx))) }()
	r, err := measure(ctx, s, o)
	if err != nil {
		return err
	}
	r.print(os.Stdout)
	return r.save(o.json)
}

// measure measures what there is to measure.
func measure(ctx context.Context, s *site, o options) (r report, err error) {
	if err := s.prepare(ctx, o.crowd); err != nil {
		return r, err
	}
	modes, err := s.modes(ctx)
	if err != nil {
		return r, err
	}
	waits := countWaits()
	for _, m := range modes {
		if err := m.ready(ctx); err != nil {
			return r, err
		}
	}
	s.tell("one by one")
	one, err := compare(ctx, modes, o.rounds, 1)
	if err != nil {
		return r, err
	}
	s.tell("%d at once", o.crowd)
	many, err := compare(ctx, modes, o.crowds, o.crowd)
	if err != nil {
		return r, err
	}
	r = report{
		Crowd: o.crowd, OneByOne: rows(modes, one, func(m *mode) float64 { return m.limit }),
		AtOnce: rows(modes, many, func(m *mode) float64 { return m.atOnce }),
	}
	if r.Throttled, err = s.throttled(ctx); err != nil {
		return r, err
	}
	r.Throttled += int(waits.Load())
	if o.pods > 0 {
		r.Memory, err = s.memory(ctx, modes, o)
	}
	return r, err
}
