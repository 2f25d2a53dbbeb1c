package main

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/mayfly-csi/mayfly/cmd/flags"
	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/event"
	"github.com/mayfly-csi/mayfly/driver/pod"
	"github.com/mayfly-csi/mayfly/driver/trust"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/certmanager"
	"github.com/mayfly-csi/mayfly/signer/local"
	"github.com/mayfly-csi/mayfly/signer/podcertificate"
	"github.com/mayfly-csi/mayfly/signer/profile"
)

// gcPercent replaces Go's GOGC of 100, unless GOGC is set: memory is held all the time, and garbage is collected only
// while certificates are issued (docs/benchmarks.md, "What is not met, and why").
const gcPercent = 50

// node runs the node plugin until ctx ends.
func node(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	o, err := parse(args, getenv, stdout)
	if err != nil {
		return err
	}
	if getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	log := o.Logger(stderr)
	klog.SetSlogLogger(log) // client-go's log.
	registry := prometheus.NewRegistry()
	process := collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})
	registry.MustRegister(collectors.NewGoCollector(), process)
	config := driver.Config{
		Names:        o.driverNames(),
		Version:      flags.Version(),
		NodeName:     o.NodeName,
		KubeletRoot:  o.KubeletRoot,
		StateDir:     o.StateDir,
		KeepRequests: o.KeepRequests,
		Defaults:     o.defaults(),
		WatchPods:    o.WatchPods,
		Metrics:      registry,
		Log:          log,
	}
	api, err := server(o)
	if err != nil {
		return err
	}
	if err := connect(&config, api, o); err != nil {
		return err
	}
	d, err := driver.New(config)
	if err != nil {
		return err
	}
	metrics := http.NewServeMux()
	metrics.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return withHTTP(ctx, "metrics", o.MetricsAddress, metrics, func(ctx context.Context) error {
		return withHTTP(ctx, "health", o.HealthAddress, health(d), func(ctx context.Context) error {
			return withoutRights(ctx, api, o, log, d.Run)
		})
	})
}

// connect gives the driver its signer, and what comes from the API server; nil if there is none.
func connect(config *driver.Config, api *rest.Config, o options) (err error) {
	if config.Trust, err = trust.New(trust.Config{API: api, Files: o.trustFiles(), Log: config.Log}); err != nil {
		return err
	}
	if api != nil {
		if err := consult(config, api, o); err != nil {
			return err
		}
	}
	switch o.Signer {
	case signerLocal:
		config.Defaults.IssuerName = cmp.Or(config.Defaults.IssuerName, "local")
		config.Signer, err = local.Open(o.LocalCA)
	case signerPodCertificate:
		config.Signer, err = podcertificate.New(api, o.NodeName)
	default:
		config.Signer, err = certmanager.New(api)
	}
	return err
}

// consult gives the driver what it tells the API server and asks of it besides signatures and CA certificates.
func consult(config *driver.Config, api *rest.Config, o options) (err error) {
	if config.Events, err = event.New(api, o.DriverNames.Values[0].Name, o.NodeName); err != nil {
		return err
	}
	if config.Pods, err = pod.New(readingPods(api, o), o.NodeName); err != nil {
		return err
	}
	if namespace, name, ok := strings.Cut(o.ConfigMap, "/"); ok {
		config.Profiles, err = profile.New(api, namespace, name, volume.ParseProfiles, config.Log)
	}
	return err
}

// readingPods returns the API server as the node plugin reads pods: as the node, where it asks for certificates as the
// node, so that it needs no right over other nodes' pods.
func readingPods(api *rest.Config, o options) *rest.Config {
	if o.Signer == signerPodCertificate {
		return podcertificate.AsNode(api, o.NodeName)
	}
	return api
}

// server returns the API server; nil where none is needed and none is named.
func server(o options) (*rest.Config, error) {
	if !o.cluster() {
		return nil, nil
	}
	return flags.APIServer(o.Kubeconfig, "mayfly")
}
