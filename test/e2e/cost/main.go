// Command cost measures what a volume costs the user of a pod: the time from the pod's creation until it runs, with the volume and
// without, alternating in one run, on a real Kubernetes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"gonum.org/v1/gonum/stat"

	"github.com/mayfly-csi/mayfly/test/cluster"
)

// namespace is made for the run.
const namespace = "cost"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cost:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("cost", flag.ContinueOnError)
	dir := flags.String("dir", "", "directory of the cluster; if none runs there, one is started for the run")
	single := flags.Int("single", 30, "how many pods to start one by one, with and without")
	crowd := flags.Int("crowd", 30, "how many pods to start at once")
	rounds := flags.Int("rounds", 5, "how many times to start them at once, with and without")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c, giveBack, err := cluster.Borrow(ctx, *dir, func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, giveBack()) }()
	if _, err := c.Namespace(ctx, namespace); err != nil {
		return err
	}
	defer func() {
		_, failed := c.Kubectl(context.WithoutCancel(ctx), "delete", "namespace", namespace)
		err = errors.Join(err, failed)
	}()
	one, err := compare(ctx, c, *single, 1)
	if err != nil {
		return err
	}
	many, err := compare(ctx, c, *rounds, *crowd)
	if err != nil {
		return err
	}
	var requests series
	for range *rounds {
		times, err := bare(ctx, c, *crowd)
		if err != nil {
			return err
		}
		requests.add(times)
	}
	show(*crowd, one, many, requests)
	return nil
}

// A series is how long pods took until they ran, and how long the last one of each round took.
type series struct {
	each, last []float64 // Seconds.
}

// A comparison is of pods without the volume and with it.
type comparison struct{ without, with series }

// compare starts pods, as many at once as are said, round after round, with and without the volume in turns. The first round is not counted.
func compare(ctx context.Context, c *cluster.Cluster, rounds, atOnce int) (comparison, error) {
	var found comparison
	for round := range rounds + 1 {
		for _, side := range []struct {
			into   *series
			volume bool
		}{{&found.without, false}, {&found.with, true}} {
			times, err := start(ctx, c, atOnce, side.volume)
			if err != nil {
				return found, err
			}
			if round > 0 {
				side.into.add(times)
			}
		}
	}
	return found, nil
}

func (s *series) add(times []time.Duration) {
	for _, t := range times {
		s.each = append(s.each, t.Seconds())
	}
	s.last = append(s.last, slices.Max(times).Seconds())
}

func quantile(p float64, values []float64) float64 {
	return stat.Quantile(p, stat.Empirical, slices.Sorted(slices.Values(values)), nil)
}

// show prints the table.
func show(crowd int, one, many comparison, requests series) {
	t := table.NewWriter()
	t.SetOutputMirror(os.Stdout)
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(table.Row{"from creation to Running", "n", "without: median", "p99", "with: median", "p99", "more, median", "ratio of medians"})
	row := func(name string, without, with []float64) {
		a, b := quantile(0.5, without), quantile(0.5, with)
		t.AppendRow(table.Row{name, len(with), seconds(a), seconds(quantile(0.99, without)), seconds(b), seconds(quantile(0.99, with)),
			seconds(b - a), fmt.Sprintf("%.2f", b/a)})
	}
	row("1 pod", one.without.each, one.with.each)
	row(fmt.Sprintf("%d pods at once: each", crowd), many.without.each, many.with.each)
	row(fmt.Sprintf("%d pods at once: the last", crowd), many.without.last, many.with.last)
	t.RenderMarkdown()
	fmt.Printf("\n%d CertificateRequests at once, without pods and without a driver, took %s each (median, p99 %s), %s until the last (median).\n",
		crowd, seconds(quantile(0.5, requests.each)), seconds(quantile(0.99, requests.each)), seconds(quantile(0.5, requests.last)))
}

func seconds(s float64) string { return fmt.Sprintf("%.2f s", s) }
