// Command certmanager runs a part of cert-manager: its controllers, its webhook, or the DNS server in which its solver of
// DNS-01 challenges writes.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "certmanager:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "controllers":
			return runControllers(ctx, args[1:])
		case "webhook":
			return runWebhook(ctx, args[1:])
		case "dns":
			return runDNS(ctx, args[1:])
		}
	}
	return errors.New("name a part: controllers, webhook or dns")
}
