package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/tools/metrics"
)

// A series is how long certificates took, and how long the last one of each round took.
type series struct {
	each, last []float64 // Seconds.
}

func (s *series) add(times []time.Duration) {
	for _, t := range times {
		s.each = append(s.each, t.Seconds())
	}
	s.last = append(s.last, slices.Max(times).Seconds())
}

// compare asks for certificates, so many at once, round after round, in each mode. What one leaves to be done for the next meets them all: they come in
// another order each time. The first round is not counted.
func compare(ctx context.Context, modes []*mode, rounds, atOnce int) ([]series, error) {
	found := make([]series, len(modes))
	for round := range rounds + 1 {
		for _, i := range rand.Perm(len(modes)) { //nolint:gosec // An order is no secret.
			times, err := modes[i].crowd(ctx, atOnce)
			if err != nil {
				return nil, err
			}
			if round > 0 {
				found[i].add(times)
			}
		}
	}
	return found, nil
}

// crowd gets a certificate for each of n pods at once.
func (m *mode) crowd(ctx context.Context, n int) ([]time.Duration, error) {
	took := make([]time.Duration, n)
	group, ctx := errgroup.WithContext(ctx)
	for i := range n {
		group.Go(func() (err error) {
			took[i], err = m.sign(ctx, i)
			return err
		})
	}
	return took, group.Wait()
}

// waits counts the requests of this process that client-go held back.
type waits struct{ atomic.Int64 }

// countWaits counts from now on. client-go tells it of requests with a rate limiter alone (k8s.io/client-go rest/request.go, tryThrottleWithInfo).
func countWaits() *waits {
	w := &waits{}
	metrics.RateLimiterLatency = w
	return w
}

// Observe implements [metrics.LatencyMetric].
func (w *waits) Observe(_ context.Context, _ string, _ url.URL, latency time.Duration) {
	if latency > 10*time.Millisecond {
		w.Add(1)
	}
}

// throttled is how many lines of the controllers' logs say that client-go held a request back for more than a second.
func (s *site) throttled(ctx context.Context) (int, error) {
	log, err := s.Kubectl(ctx, "--namespace", system, "logs", "--selector=app.kubernetes.io/name=mayfly-controller", "--tail=-1")
	if err != nil {
		return 0, fmt.Errorf("read the controllers' logs: %w", err)
	}
	return strings.Count(log, "client-side throttling"), nil
}
