package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/go-logr/logr"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	runtimelog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/mayfly-csi/mayfly/cmd/flags"
	"github.com/mayfly-csi/mayfly/signer/controller/certificaterequests"
	"github.com/mayfly-csi/mayfly/signer/controller/cluster"
	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
	"github.com/mayfly-csi/mayfly/signer/controller/status"
	"github.com/mayfly-csi/mayfly/signer/profile"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// control runs the controller until ctx ends.
func control(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	o, err := parse(args, getenv, stdout)
	if err != nil {
		return err
	}
	log := o.Log.Logger(stderr)
	klog.SetSlogLogger(log) // client-go's log.
	runtimelog.SetLogger(logr.FromSlogHandler(log.Handler()))
	api, err := flags.APIServer(o.Kubeconfig, "mayfly-controller")
	if err != nil {
		return err
	}
	api.QPS = -1 // k8s.io/client-go rest/config.go: a negative rate is no limit. The controllers' workers are one.
	self, err := whoAmI(ctx, api)
	switch {
	case err != nil && o.PodCertificates:
		return err
	case err != nil:
		log.Warn("the controller's own pod is not known, and gets no events", "error", err)
	}
	m, err := newManager(api, o, self.Username)
	if err != nil {
		return err
	}
	decider, err := newDecider(m, api, o, log)
	if err != nil {
		return err
	}
	record, holder, err := o.Audit.open(m, self, stdout, log)
	if err != nil {
		return err
	}
	defer record.Close()
	decider.Limits = cluster.NewLimits(cluster.LimitsConfig{
		Rate: o.NodeRate, Events: m.GetEventRecorder("mayfly-controller"), Audit: record,
		Metrics: metrics.Registry, Log: log,
	})
	c := certificaterequests.New(certificaterequests.Config{
		Callers: o.callers(), Decider: decider, Requests: m.GetClient(), Audit: record, Holder: holder,
		Events: m.GetEventRecorder("mayfly-controller"), Metrics: metrics.Registry, Log: log,
	})
	if err := c.Add(m); err != nil {
		return err
	}
	if err := errors.Join(o.place(m, log), o.watchNodes(m, log)); err != nil {
		return err
	}
	if o.PodCertificates {
		if err := sign(m, decider, record, holder, o, self.Username, log); err != nil {
			return err
		}
	}
	return m.Start(ctx)
}

// newDecider makes a decider by the policies and profiles that the manager watches.
func newDecider(m manager.Manager, api *rest.Config, o options, log *slog.Logger) (cluster.Decider, error) {
	changes := &cluster.Changes{}
	policies, err := policy.NewLive(o.policy(), m.GetCache(), changes.Notify, metrics.Registry, log)
	if err != nil {
		return cluster.Decider{}, err
	}
	if err := errors.Join(policies.Add(m), m.AddReadyzCheck("policies", known(policies.Get))); err != nil {
		return cluster.Decider{}, err
	}
	writer := status.Writer{Policies: policies, API: m.GetClient(), Live: m.GetAPIReader(), Log: log}
	if err := writer.Add(m); err != nil {
		return cluster.Decider{}, err
	}
	decider := cluster.Decider{Rules: o.rules(), Policies: policies, Live: m.GetAPIReader(), Changes: changes}
	if namespace, name, ok := strings.Cut(o.Volumes.ConfigMap, "/"); ok {
		profiles, err := profile.New(api, namespace, name, spec.ParseProfiles, log)
		if err != nil {
			return decider, err
		}
		read := func(ctx context.Context) error {
			return profiles.Run(ctx, func(*spec.Profiles) { changes.Notify() })
		}
		if err := errors.Join(m.Add(everywhere{read}), m.AddReadyzCheck("profiles", known(profiles.Get))); err != nil {
			return decider, fmt.Errorf("add the profiles: %w", err)
		}
		decider.Profiles = profiles
	}
	return decider, nil
}

// everywhere is what every replica runs, whoever leads.
type everywhere struct {
	run func(context.Context) error
}

// Start implements [manager.Runnable].
func (e everywhere) Start(ctx context.Context) error { return e.run(ctx) }

// NeedLeaderElection implements [manager.LeaderElectionRunnable].
func (e everywhere) NeedLeaderElection() bool { return false }

// known returns a check that policies or profiles are known. Where the CRD is missing, or the ConfigMap is wrong, the
// replicas that know them go on: a roll-out does not replace them.
func known[T any](get func(context.Context) (T, error)) healthz.Checker {
	return func(req *http.Request) error {
		ctx, cancel := context.WithTimeout(req.Context(), time.Second)
		defer cancel()
		_, err := get(ctx)
		return err
	}
}

// newScheme returns the kinds that the commands read.
func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	return scheme, errors.Join(corev1.AddToScheme(scheme), cmapi.AddToScheme(scheme), v1alpha1.AddToScheme(scheme),
		certificatesv1.AddToScheme(scheme), storagev1.AddToScheme(scheme))
}

// newManager makes a manager whose cache holds CertificatePolicies and requests, and the controller's CAs where it
// signs; of what is not the controller's it has the names.
func newManager(api *rest.Config, o options, self string) (manager.Manager, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	m, err := manager.New(api, manager.Options{
		Scheme:                        scheme,
		Cache:                         cache.Options{ByObject: cached(o, self)},
		LeaderElection:                o.PodCertificates, // The leader rotates the CA, and does nothing else alone.
		LeaderElectionID:              "mayfly-controller",
		LeaderElectionNamespace:       o.CANamespace,
		LeaderElectionReleaseOnCancel: true,
		// Who does not renew in time exits, and decides on nothing meanwhile: an API server that is slow for some ten
		// seconds, as under attack, is no reason for that. Nothing that a leader does is urgent.
		LeaseDuration:          new(time.Minute),
		RenewDeadline:          new(50 * time.Second),
		RetryPeriod:            new(5 * time.Second),
		Metrics:                server.Options{BindAddress: cmp.Or(o.MetricsAddress, "0")},
		HealthProbeBindAddress: cmp.Or(o.HealthAddress, "0"),
	})
	if err != nil {
		return nil, fmt.Errorf("make the controller: %w", err)
	}
	alive := func(*http.Request) error { return nil }
	ready := func(req *http.Request) error {
		ctx, cancel := context.WithTimeout(req.Context(), time.Second)
		defer cancel()
		if !m.GetCache().WaitForCacheSync(ctx) {
			return errors.New("the requests are not known yet")
		}
		return nil
	}
	if err := errors.Join(m.AddHealthzCheck("alive", alive), m.AddReadyzCheck("requests", ready)); err != nil {
		return nil, fmt.Errorf("make the controller: %w", err)
	}
	return m, nil
}
