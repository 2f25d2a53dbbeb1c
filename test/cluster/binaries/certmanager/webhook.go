package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/cert-manager/cert-manager/internal/apis/config/shared"
	config "github.com/cert-manager/cert-manager/internal/apis/config/webhook"
	"github.com/cert-manager/cert-manager/internal/webhook"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
)

// runWebhook serves cert-manager's admission webhook until ctx ends: it stamps the caller on a request and guards its approval.
func runWebhook(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("webhook", flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "kubeconfig file")
	port := flags.Int("port", 10260, "port to listen on")
	crt := flags.String("tls-cert-file", "", "certificate to serve with")
	key := flags.String("tls-private-key-file", "", "its key")
	if err := flags.Parse(args); err != nil {
		return err
	}
	server, err := webhook.NewCertManagerWebhookServer(logf.FromContext(ctx), config.WebhookConfiguration{
		KubeConfig:           *kubeconfig,
		SecurePort:           int32(*port), //nolint:gosec // A port.
		MetricsListenAddress: "0",
		TLSConfig:            shared.TLSConfig{Filesystem: shared.FilesystemServingConfig{CertFile: *crt, KeyFile: *key}},
	})
	if err != nil {
		return fmt.Errorf("make the webhook: %w", err)
	}
	return server.Run(ctx)
}
