package main

import (
	"context"
	"flag"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/cert-manager/cert-manager/pkg/controller"
	_ "github.com/cert-manager/cert-manager/pkg/controller/acmechallenges"           // Registers a controller, as each of the next.
	_ "github.com/cert-manager/cert-manager/pkg/controller/acmeorders"               //
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/acme" //
	"github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"         //
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned" //
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"           //
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"        //
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"         //
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"    //
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"   //
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"           //
	_ "github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"                 //
	_ "github.com/cert-manager/cert-manager/pkg/controller/issuers"                        //
	_ "github.com/cert-manager/cert-manager/pkg/issuer/acme"                               // Registers a kind of issuer, as the next two.
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"                                 //
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"                         //
	"golang.org/x/sync/errgroup"
)

// workers of each controller: cert-manager's default (cmd/controller, --concurrent-workers).
const workers = 5

// runControllers runs every controller that is linked, until ctx ends.
func runControllers(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("controllers", flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "kubeconfig file")
	approve := flags.Bool("approve", true, "run the approver, which approves every request")
	nameservers := flags.String("dns01-nameservers", "", "host:port of the DNS servers that are asked whether a challenge is published")
	if err := flags.Parse(args); err != nil {
		return err
	}
	factory, err := controller.NewContextFactory(ctx, controller.ContextOptions{
		Kubeconfig:       *kubeconfig,
		KubernetesAPIQPS: -1,
		IssuerOptions:    controller.IssuerOptions{ClusterResourceNamespace: "cert-manager"},
		ACMEOptions: controller.ACMEOptions{
			DNS01Nameservers:      strings.Split(*nameservers, ","),
			DNS01CheckRetryPeriod: time.Second,
		},
		CertificateOptions: backoff(),
		SchedulerOptions:   controller.SchedulerOptions{MaxConcurrentChallenges: 60},
	})
	if err != nil {
		return fmt.Errorf("make the controllers' context: %w", err)
	}
	shared, err := factory.Build()
	if err != nil {
		return fmt.Errorf("make the shared context: %w", err)
	}
	running, err := controllers(factory, *approve)
	if err != nil {
		return err
	}
	shared.SharedInformerFactory.Start(ctx.Done())
	shared.KubeSharedInformerFactory.Start(ctx.Done())
	shared.HTTP01ResourceMetadataInformersFactory.Start(ctx.Done())
	return runAll(ctx, running)
}

// backoff returns the defaults of cmd/controller for Certificates that fail. cert-manager 1.20 knows no maximum.
func backoff() controller.CertificateOptions {
	options := controller.CertificateOptions{CertificateRequestMinimumBackoffDuration: time.Hour}
	most := reflect.ValueOf(&options).Elem().FieldByName("CertificateRequestMaximumBackoffDuration")
	if most.IsValid() {
		most.SetInt(int64(32 * time.Hour))
	}
	return options
}

// controllers makes what is linked; the approver only if it is wanted.
func controllers(factory *controller.ContextFactory, approve bool) ([]controller.Interface, error) {
	var all []controller.Interface
	for name, construct := range controller.Known() {
		if name == approver.ControllerName && !approve {
			continue
		}
		c, err := construct(factory)
		if err != nil {
			return nil, fmt.Errorf("make controller %s: %w", name, err)
		}
		all = append(all, c)
	}
	return all, nil
}

func runAll(ctx context.Context, controllers []controller.Interface) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, c := range controllers {
		group.Go(func() error { return c.Run(workers, ctx) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("run a controller: %w", err)
	}
	return nil
}
