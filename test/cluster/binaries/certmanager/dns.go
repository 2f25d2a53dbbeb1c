package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"testing"

	"github.com/cert-manager/cert-manager/test/acme/server"
	"github.com/miekg/dns"
)

// runDNS serves a zone that can be changed by RFC 2136, until ctx ends: cert-manager's own DNS server for tests. Anyone may
// change it.
func runDNS(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("dns", flag.ContinueOnError)
	address := flags.String("address", "127.0.0.1:53", "host:port to listen on")
	zone := flags.String("zone", "", "the zone, with a dot at its end")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var records dns.Handler // The first server makes them: both have the same.
	for _, network := range []string{"udp", "tcp"} {
		s := &server.BasicServer{T: new(testing.T), Zones: []string{*zone}, Handler: records}
		if err := s.RunWithAddress(ctx, *address, network); err != nil {
			return fmt.Errorf("serve DNS over %s: %w", network, err)
		}
		records = s.Handler
		defer func() { err = errors.Join(err, s.Shutdown()) }()
	}
	<-ctx.Done()
	return nil
}
