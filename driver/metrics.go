package driver

import (
	"crypto/x509"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what an operator watches. None is per volume: their number does not grow with the node's pods.
type metrics struct {
	issued    prometheus.Counter
	skewed    prometheus.Counter
	swappable prometheus.Counter
	pushed    prometheus.Counter
	failed    *prometheus.CounterVec
}

func newMetrics(d *Driver, registry prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		issued: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mayfly_certificates_issued_total", Help: "Certificates written into volumes, renewals included."}),
		skewed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mayfly_certificates_skewed_total", Help: "Certificates accepted although they begin up to 5 minutes after the node's time: the clocks of signer and node differ."}),
		swappable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mayfly_tmpfs_swappable_total", Help: "Volumes whose memory the kernel may swap to disk: it does not know tmpfs's noswap (Linux 6.4)."}),
		pushed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mayfly_trust_changes_total", Help: "Changes of the CA certificates in volumes without a new certificate."}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mayfly_attempts_failed_total", Help: "Attempts that brought no certificate, by the kind of failure."}, []string{"kind"}),
	}
	if registry == nil {
		return m, nil
	}
	volumes := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mayfly_volumes", Help: "Volumes that this node holds."}, func() float64 { return float64(len(d.all())) })
	expiry := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mayfly_first_expiry_timestamp_seconds", Help: "When the first certificate of this node expires, as Unix time; 0 without any."}, d.firstExpiry)
	troubled := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mayfly_trust_sources_in_trouble", Help: "Sources of CA certificates, of those that volumes of this node use, that are missing or of no use now."}, d.troubled)
	all := []prometheus.Collector{m.issued, m.skewed, m.swappable, m.pushed, m.failed, volumes, expiry, troubled}
	if d.Profiles != nil {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mayfly_profiles_valid", Help: "1 if the ConfigMap of the profiles is understood as it is now; 0: what it said before counts."}, d.profilesValid))
	}
	var errs []error
	for _, c := range all {
		errs = append(errs, registry.Register(c))
	}
	return m, errors.Join(errs...)
}

func (m *metrics) issuedAt(received time.Time, leaf *x509.Certificate) {
	m.issued.Inc()
	if leaf.NotBefore.After(received) {
		m.skewed.Inc()
	}
}

func (d *Driver) profilesValid() float64 {
	if d.Profiles.Valid() {
		return 1
	}
	return 0
}

func (d *Driver) firstExpiry() float64 {
	var first time.Time
	for _, h := range d.all() {
		h.mu.Lock()
		if h.pair != nil && (first.IsZero() || h.pair.notAfter.Before(first)) {
			first = h.pair.notAfter
		}
		h.mu.Unlock()
	}
	if first.IsZero() {
		return 0
	}
	return float64(first.Unix())
}
