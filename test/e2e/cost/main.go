// Command cost measures what a volume costs the user of a pod: the time from the pod's creation until it runs, with the volume and
// without, alternating in one run, on a real Kubernetes.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"gonum.org/v1/gonum/stat"

	"github.com/mayfly-csi/mayfly/test/cluster"
)

// namespace is made for the run.
const namespace = "cost"

func main() { cluster.Main("cost", run) }

func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("cost", flag.ContinueOnError)
	dir := flags.String("dir", "", "directory of the cluster; if none runs there, one is started for the run")
	single := flags.Int("single", 30, "how many pods to start one by one, with and without")
	crowd := flags.Int("crowd", 30, "how many pods to start at once")
	file := flags.String("json", "", "file to write the numbers to")
	rounds := flags.Int("rounds", 5, "how many times to start them at once, with and without")
	attacks := flags.Int("attacks", 0, "start so many pods during each attack on mayfly-controller, and measure nothing else")
	asNode := flags.Bool("pod-certificates", false, "of the attacks: in mode pod-certificate, with the controller's own CA")
	if err := flags.Parse(args); err != nil {
		return err
	}
	tell := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	c, giveBack, err := cluster.BorrowNamespace(ctx, *dir, namespace, tell)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, giveBack()) }()
	if *attacks > 0 {
		rows, err := attacked(ctx, &siege{Cluster: c, asNode: *asNode, tell: tell}, *attacks)
		if err == nil {
			show("from creation to Running, while there is", rows)
		}
		return err
	}
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
	measured := rows(*crowd, one, many)
	show("from creation to Running", measured)
	fmt.Printf("\n%d CertificateRequests at once, without pods and without a driver, took %s each (median; p99 %s), and %s until the last (median).\n",
		*crowd, seconds(quantile(0.5, requests.each)), seconds(quantile(0.99, requests.each)), seconds(quantile(0.5, requests.last)))
	return save(measured, *file)
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
		for i := range 2 {
			var volume map[string]string
			if (round+i)%2 == 0 { // Each side is the first in every other round.
				volume = byIssuer()
			}
			times, err := start(ctx, c, atOnce, volume)
			if err != nil {
				return found, err
			}
			into := &found.without
			if volume != nil {
				into = &found.with
			}
			if round > 0 {
				into.add(times)
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

// A row is how long one thing took without the volume and with it, in seconds.
type row struct {
	Name          string  `json:"name"`
	N             int     `json:"n"`
	WithoutMedian float64 `json:"withoutMedian"`
	WithoutP99    float64 `json:"withoutP99"`
	WithMedian    float64 `json:"withMedian"`
	WithP99       float64 `json:"withP99"`
	Ratio         float64 `json:"ratio"` // Of the medians.
}

func newRow(name string, without, with []float64) row {
	r := row{Name: name, N: len(with), WithoutMedian: quantile(0.5, without), WithoutP99: quantile(0.99, without), WithMedian: quantile(0.5, with), WithP99: quantile(0.99, with)}
	r.Ratio = r.WithMedian / r.WithoutMedian
	return r
}

// rows are what was measured.
func rows(crowd int, one, many comparison) []row {
	return []row{
		newRow("1 pod", one.without.each, one.with.each),
		newRow(fmt.Sprintf("%d pods at once: each", crowd), many.without.each, many.with.each),
		newRow(fmt.Sprintf("%d pods at once: the last", crowd), many.without.last, many.with.last),
	}
}

// show prints the table.
func show(title string, rows []row) {
	t := table.NewWriter()
	t.SetOutputMirror(os.Stdout)
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(table.Row{title, "n", "without: median", "p99", "with: median", "p99", "more, median", "ratio of medians"})
	for _, r := range rows {
		t.AppendRow(table.Row{r.Name, r.N, seconds(r.WithoutMedian), seconds(r.WithoutP99), seconds(r.WithMedian), seconds(r.WithP99),
			seconds(r.WithMedian - r.WithoutMedian), fmt.Sprintf("%.2f", r.Ratio)})
	}
	t.RenderMarkdown()
}

// save writes the rows to a file, if one is named.
func save(rows []row, path string) error {
	if path == "" {
		return nil
	}
	text, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return fmt.Errorf("write the numbers: %w", err)
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

func seconds(s float64) string { return fmt.Sprintf("%.2f s", s) }
