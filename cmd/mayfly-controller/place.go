package main

import (
	"context"
	"log/slog"

	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/mayfly-csi/mayfly/signer/controller/placement"
	"github.com/mayfly-csi/mayfly/signer/controller/startup"
)

// place makes the manager say, once, whether this replica runs on a worker node. Where it can't know it runs all the
// same.
func (o *options) place(m manager.Manager, log *slog.Logger) error {
	if o.NodeName == "" {
		return nil
	}
	where := placement.Config{Node: o.NodeName, API: m.GetAPIReader(), Metrics: metrics.Registry, Log: log}
	return m.Add(everywhere{func(ctx context.Context) error {
		if err := where.Report(ctx); err != nil {
			log.Warn("it is not known whether the controller runs on a worker node", "error", err)
		}
		return nil
	}})
}

// watchNodes makes the manager take the start-up taint off nodes that are ready for pods with volumes, if that is on.
func (o *options) watchNodes(m manager.Manager, log *slog.Logger) error {
	if !o.StartupTaint {
		return nil
	}
	var names []string
	for _, driver := range o.Volumes.DriverNames.Values {
		names = append(names, driver.Name)
	}
	remover := &startup.Remover{Drivers: names, API: m.GetClient(), Live: m.GetAPIReader(), Log: log}
	return remover.Add(m)
}
