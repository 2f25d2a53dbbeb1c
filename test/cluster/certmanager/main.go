// Command certmanager runs the controllers of cert-manager that sign CertificateRequests: CA and self-signed issuers,
// and the approver unless it is left out.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"

	"github.com/cert-manager/cert-manager/pkg/controller"
	"github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	"github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	"github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	"github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	"github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"         // Registers the kind of issuer.
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned" // Registers the kind of issuer.
)

// workers of each controller: cert-manager's default (cmd/controller, --concurrent-workers).
const workers = 5

func main() {
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig file")
	approve := flag.Bool("approve", true, "run the approver, which approves every request")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, *kubeconfig, *approve)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "certmanager:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig string, approve bool) error {
	factory, err := controller.NewContextFactory(ctx, controller.ContextOptions{
		Kubeconfig:       kubeconfig,
		KubernetesAPIQPS: -1,
		IssuerOptions:    controller.IssuerOptions{ClusterResourceNamespace: "cert-manager"},
	})
	if err != nil {
		return fmt.Errorf("make the controllers' context: %w", err)
	}
	names := []string{ca.CRControllerName, selfsigned.CRControllerName, issuers.ControllerName, clusterissuers.ControllerName}
	if approve {
		names = append(names, approver.ControllerName)
	}
	var running []controller.Interface
	for _, name := range slices.Sorted(slices.Values(names)) {
		c, err := controller.Known()[name](factory)
		if err != nil {
			return fmt.Errorf("make controller %s: %w", name, err)
		}
		running = append(running, c)
	}
	return start(ctx, factory, running)
}

// start runs the controllers until ctx ends.
func start(ctx context.Context, factory *controller.ContextFactory, controllers []controller.Interface) error {
	shared, err := factory.Build()
	if err != nil {
		return fmt.Errorf("make the shared context: %w", err)
	}
	shared.SharedInformerFactory.Start(ctx.Done())
	shared.KubeSharedInformerFactory.Start(ctx.Done())
	var group sync.WaitGroup
	failed := make(chan error, len(controllers))
	for _, c := range controllers {
		group.Go(func() { failed <- c.Run(workers, ctx) })
	}
	group.Wait()
	close(failed)
	for err := range failed {
		if err != nil {
			return fmt.Errorf("run a controller: %w", err)
		}
	}
	return nil
}
