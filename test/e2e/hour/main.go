// Command hour runs 300 volumes on a real Kubernetes for an hour: those of a healthy issuer, of a slow one and of one that falls silent again and again. At the
// end it demands that no certificate of the healthy issuer had ended, and that every Event told the truth: it compares them with the certificates.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mayfly-csi/mayfly/test/cluster"
)

const (
	namespace = "hour" // Is made for the run.
	volumes   = 5      // Of each pod.
)

type options struct {
	dir  string
	pods int           // Of each issuer.
	last time.Duration // From the moment on when all pods run.
}

func main() { cluster.Main("hour", run) }

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("hour", flag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", "", "directory of the cluster; if none runs there, one is started for the run")
	flags.IntVar(&o.pods, "pods", 20, fmt.Sprintf("how many pods each issuer has, with %d volumes each", volumes))
	flags.DurationVar(&o.last, "for", time.Hour, "how long to look on once all pods run")
	return o, flags.Parse(args)
}

func run(ctx context.Context, args []string) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	c, giveBack, err := cluster.BorrowNamespace(ctx, o.dir, namespace, tell)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, giveBack()) }()
	defer func() {
		_, left := c.Kubectl(context.WithoutCancel(ctx), "delete", "--ignore-not-found", "--filename", definition)
		err = errors.Join(err, left)
	}()
	if _, err := c.Kubectl(ctx, "apply", "--filename", definition); err != nil {
		return err
	}
	seen, err := watch(ctx, c, o)
	if err != nil {
		return err
	}
	return seen.report(os.Stdout)
}

// watch has the pods started and looked on at, while the issuers sign or don't, and returns what there was to see.
func watch(ctx context.Context, c *cluster.Cluster, o options) (*ledger, error) {
	ctx, cancel := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	defer func() { cancel(); _ = group.Wait() }()
	seen := newLedger()
	issuers, err := newIssuers(c, group, seen)
	if err != nil {
		return nil, err
	}
	if err := issuers.run(ctx); err != nil {
		return nil, err
	}
	tell("starting the pods")
	if err := startAll(ctx, c, o.pods); err != nil {
		return nil, err
	}
	tell("all pods run")
	issuers.begin(time.Now())
	for _, node := range c.Nodes {
		group.Go(func() error { return seen.look(ctx, c.Node(node)) })
	}
	group.Go(func() error { return newcomers(ctx, c, seen) })
	select {
	case <-time.After(o.last):
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), group.Wait())
	}
	seen.ended = time.Now()
	cancel()
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return nil, err
	}
	return seen, nil
}

func tell(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format(time.TimeOnly)+" "+format+"\n", args...)
}
