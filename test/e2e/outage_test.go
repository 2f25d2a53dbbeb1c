package e2e

import (
	"context"
	"time"
)

// outage is for how long something is down, and soon is when things must be well again after it: before the kubelet's own backoff of up to 2 minutes would.
const (
	outage = 2 * time.Minute
	soon   = 90 * time.Second
)

func certManagerDown(s *story) {
	s.start(pod("running"), pod("renewing", asks("duration=1m")))
	running := s.leaf("running")
	back := s.down("webhook", "cert-manager")
	s.create(pod("starting"))
	s.says("starting", "FailedMount", "signer unavailable: create CertificateRequest", "failed calling webhook")
	s.says("renewing", "CertificateNotRenewed", "failed calling webhook", "the pod keeps its certificate")
	back()
	s.startsSoon("starting")
	s.renewedSoon("renewing")
	if !s.leaf("running").Equal(running) {
		s.Error("the pod that was not due has another certificate")
	}
	s.untroubled("running")
}

// A pod can be starting while the API server is down only if its kubelet knows it already: it waits for an approval when that begins.
func apiServerDown(s *story) {
	s.start(pod("running"), pod("renewing", asks("duration=1m")))
	running := s.leaf("running")
	byHand(s, func() {
		s.create(pod("starting"))
		s.requested(1)
		defer mayBeRefused()() // An API server that starts does not know the roles at once.
		s.down("kube-apiserver")()
		if err := shared.WaitAPI(s.Context()); err != nil {
			s.Fatal(err)
		}
	})
	s.startsSoon("starting")
	s.says("starting", "FailedMount", "signer unavailable: ", "the API server did not answer: dial tcp ", "connection refused")
	s.renewedSoon("renewing")
	if !s.leaf("running").Equal(running) {
		s.Error("the pod that was not due has another certificate")
	}
	s.untroubled("running")
}

// down stops services of the control plane. What it returns starts them again when the outage has lasted long enough.
func (s *story) down(services ...string) (back func()) {
	s.Helper()
	begin := time.Now()
	for _, service := range services {
		if err := shared.ControlPlane.Stop(s.Context(), service); err != nil {
			s.Fatal(err)
		}
	}
	start := func() {
		for _, service := range services {
			if err := shared.ControlPlane.Start(context.Background(), service); err != nil {
				s.Error(err)
			}
		}
	}
	s.Cleanup(start) // Starting twice does nothing.
	return func() {
		s.Helper()
		time.Sleep(time.Until(begin.Add(outage))) // The outage itself.
		start()
	}
}

// startsSoon waits until the pod is ready, and tells how long that took.
func (s *story) startsSoon(pod string) {
	s.Helper()
	begin := time.Now()
	if err := within(s.Context(), soon, "pod "+pod+" to be ready", s.isReady(pod)); err != nil {
		s.Fatal(err)
	}
	s.leaf(pod)
	s.Logf("pod %s was ready %s after the outage", pod, time.Since(begin).Round(time.Second))
}

// renewedSoon waits until the pod has a valid certificate again, and tells how long that took.
func (s *story) renewedSoon(pod string) {
	s.Helper()
	begin := time.Now()
	err := within(s.Context(), soon, "pod "+pod+" to have a valid certificate", func(context.Context) error {
		_, err := s.exec(pod, "/bin/workload", "valid")
		return err
	})
	if err != nil {
		s.Fatal(err)
	}
	s.Logf("pod %s was renewed %s after the outage", pod, time.Since(begin).Round(time.Second))
}
