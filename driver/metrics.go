package driver

import (
	"crypto/x509"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mayfly-csi/mayfly/signer"
)

// metrics holds the driver's metrics. None is per volume, so that their number does not grow with the node's pods.
type metrics struct {
	issued    prometheus.Counter
	skewed    prometheus.Counter
	swappable prometheus.Counter
	updated   prometheus.Counter
	failed    *prometheus.CounterVec
}

// newMetrics makes the metrics and registers them; a nil registry has none.
func newMetrics(d *Driver, registry prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		issued: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mayfly_certificates_issued_total", Help: "Certificates written into volumes, renewals included."}),
		skewed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mayfly_certificates_skewed_total", Help: "Certificates accepted although they begin up to 5 minutes after the node's time: the clocks of signer and node differ."}),
		swappable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mayfly_tmpfs_swappable_total", Help: "Volumes whose memory the kernel may swap to disk: it does not know tmpfs's noswap (Linux 6.4)."}),
		updated: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mayfly_trust_changes_total", Help: "Changes of the CA certificates in volumes without a new certificate."}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mayfly_attempts_failed_total", Help: "Attempts that brought no certificate, by the kind of failure."}, []string{"kind"}),
	}
	if registry == nil {
		return m, nil
	}
	volumes := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mayfly_volumes", Help: "Volumes that this node holds."},
		func() float64 { return float64(len(d.store.All())) })
	expiry := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mayfly_first_expiry_timestamp_seconds", Help: "When the first certificate of this node expires, as Unix time; 0 without any."},
		func() float64 { return unix(d.store.FirstEnd()) })
	troubled := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mayfly_trust_sources_in_trouble", Help: "Sources of CA certificates, of those that volumes of this node use, that are missing or unusable now."},
		func() float64 { return float64(d.trust.FailingSources()) })
	earlier := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mayfly_volumes_with_earlier_settings", Help: "Volumes that the current flags and profiles don't fit: the last ones that did are used."},
		func() float64 { return float64(d.resolve.Earlier()) })
	all := []prometheus.Collector{
		m.issued, m.skewed, m.swappable, m.updated, m.failed, volumes, expiry, troubled, earlier,
	}
	if d.Profiles != nil {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mayfly_profiles_valid", Help: "1 if the last version of the profiles' ConfigMap was parsed; 0: the last valid one is used."},
			d.profilesValid))
	}
	var errs []error
	for _, c := range all {
		errs = append(errs, registry.Register(c))
	}
	return m, errors.Join(errs...)
}

// Issued counts a certificate and the time at which it was received.
func (m *metrics) Issued(received time.Time, leaf *x509.Certificate) {
	m.issued.Inc()
	if leaf.NotBefore.After(received) {
		m.skewed.Inc()
	}
}

// Failed counts an attempt that failed.
func (m *metrics) Failed(kind signer.Kind) { m.failed.WithLabelValues(kind.String()).Inc() }

// profilesValid returns 1 if the last version of the profiles was parsed, else 0.
func (d *Driver) profilesValid() float64 {
	if d.Profiles.Valid() {
		return 1
	}
	return 0
}

// unix returns a time in Unix seconds; 0 for the zero time.
func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}
