package driver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mayfly-csi/mayfly/driver/service"
)

const (
	// probeTimeout is how long the answer of a socket of the driver's own may take.
	probeTimeout = 3 * time.Second
	// stuckAfter is how long a queue makes no progress until it is stuck: ten times what one of its calls may take, so
	// that a silent signer or API server never looks like it.
	stuckAfter = 10 * time.Minute
)

// Healthy returns what only a new process can mend: a CSI socket on which nobody answers, or a queue that is stuck. It
// asks neither the API server nor the signer. A driver that starts or stops is healthy.
func (d *Driver) Healthy(ctx context.Context) error {
	if !d.server.Serving() {
		return nil
	}
	var errs []error
	if err := d.queue.Stuck(stuckAfter); err != nil {
		errs = append(errs, fmt.Errorf("renewals: %w", err))
	}
	if err := d.trust.Stuck(stuckAfter); err != nil {
		errs = append(errs, fmt.Errorf("changes of CA certificates: %w", err))
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	for _, name := range d.Names {
		if name.Endpoint == "" {
			continue
		}
		errs = append(errs, service.Probe(ctx, name.Endpoint))
	}
	return errors.Join(errs...)
}

// Ready returns what keeps the kubelet from calling the driver under each of its names; nil: nothing does.
func (d *Driver) Ready() error { return d.server.Ready() }
