package trust

import (
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// A list is the operator's list of distrusted certificates.
type list struct {
	known      bool                // Distrust was called.
	distrusted volume.Fingerprints // nil: nobody has said, and each volume keeps to its last list.
	applied    bool                // All volumes follow it, and that was logged.
}

// A distrust is what the list means for a volume. The zero distrust is that of a volume without a list.
type distrust struct {
	list   volume.Fingerprints // That which its files follow.
	issuer bool                // Its certificate is of a distrusted issuer.
	all    bool                // All of its CA certificates are distrusted.
}

// addListMetrics makes the metrics of distrusted certificates.
func (u *Updater) addListMetrics(metrics promauto.Factory) {
	metrics.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mayfly_volumes_with_distrusted_issuer",
		Help: "Volumes whose certificate was issued, directly or not, " +
			"by a CA certificate that the operator distrusts."},
		func() float64 {
			u.mu.Lock()
			defer u.mu.Unlock()
			return float64(u.count(func(d distrust) bool { return d.issuer }))
		})
}

// count returns how many volumes match. u.mu must be held.
func (u *Updater) count(match func(distrust) bool) (n int) {
	for _, f := range u.volumes {
		if match(f.distrust) {
			n++
		}
	}
	return n
}

// Distrust sets the operator's list of distrusted certificates, and schedules an update of each volume that follows
// another one. Of nil each volume keeps to its last list. No volume gets its first pair before the first call.
func (u *Updater) Distrust(distrusted volume.Fingerprints) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.list = list{known: true, distrusted: distrusted, applied: slices.Equal(u.list.distrusted, distrusted)}
	for id, f := range u.volumes {
		f.wakeUp()
		u.follow(id, f)
	}
	u.logApplied()
}

// follows reports whether a volume follows the current list. u.mu must be held.
func (u *Updater) follows(d distrust) bool {
	return u.list.distrusted == nil || slices.Equal(d.list, u.list.distrusted)
}

// follow schedules an update of a volume that does not follow the current list. u.mu must be held.
func (u *Updater) follow(id string, f *followed) {
	if u.follows(f.distrust) {
		return
	}
	u.list.applied = false
	u.changed(id, f)
}

// currentList returns the operator's list.
func (u *Updater) currentList() list {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.list
}

// setDistrust records what the list means for a volume whose files follow the memory.
func (u *Updater) setDistrust(id string, spec volume.Volume, m Memory, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f := u.state(id)
	f.distrust = distrust{m.distrusted, m.DistrustedIssuer() != "", m.AllDistrusted(spec.Trust, now)}
	u.follow(id, f) // The list may have changed meanwhile.
	u.logApplied()
}

// logApplied logs once that all volumes follow the current list. u.mu must be held.
func (u *Updater) logApplied() {
	if !u.list.known || u.list.applied {
		return
	}
	unresolved := 0 // What their pods ask for is not known: they can't be changed.
	for _, v := range u.store.All() {
		f := u.volumes[v.ID()]
		switch {
		case !v.HasPair():
		case v.Spec().ID == "":
			unresolved++
		case f != nil && !u.follows(f.distrust):
			return
		}
	}
	u.list.applied = true
	u.log.Info("the list of distrusted CA certificates is applied", "fingerprints", len(u.list.distrusted),
		"volumes", len(u.volumes), "withDistrustedIssuer", u.count(func(d distrust) bool { return d.issuer }),
		"withoutCA", u.count(func(d distrust) bool { return d.all }), "unresolved", unresolved)
}

// checkFirst returns an error for a volume without a pair that is not to get one yet, by the operator's list. It is
// tried again, like a request that is not signed yet.
func (u *Updater) checkFirst(m Memory, sources []volume.Source, now time.Time) error {
	switch {
	case !u.currentList().known:
		return signer.Errorf(signer.NotYet, "the list of distrusted CA certificates, in the profiles' ConfigMap, "+
			"has not been read yet")
	case !slices.Contains(sources, volume.Source{Kind: volume.IssuerSource}) && m.AllDistrusted(sources, now):
		return signer.Errorf(signer.NotYet, "%s", allDistrusted)
	}
	return nil
}

const allDistrusted = "the driver's operator distrusts every CA certificate of the volume"

// checkPair returns an error for a pair that the operator's list excludes: of a distrusted issuer, which peers refuse,
// or the first one of a pod that would trust nobody.
func checkPair(v *store.Volume, spec volume.Volume, m Memory, now time.Time) error {
	problem := ""
	if issuer := m.DistrustedIssuer(); issuer != "" {
		problem = "the driver's operator distrusts " + issuer + ", which issued it"
	} else if !v.HasPair() && m.AllDistrusted(spec.Trust, now) {
		problem = allDistrusted
	}
	if problem == "" {
		return nil
	}
	const format = "unusable certificate from %s %s: %s"
	return signer.Errorf(signer.Failed, format, spec.Issuer.Kind, spec.Issuer.Name, problem)
}

// warnOfDistrust queues warnings of what the operator's list breaks, at once.
func (u *Updater) warnOfDistrust(v *store.Volume, spec volume.Volume, before, after Memory, now time.Time) {
	issuer := func(m Memory) map[string]string {
		if name := m.DistrustedIssuer(); name != "" {
			const format = "the driver's operator distrusts %s, which issued the pod's certificate: " +
				"peers that do not trust it any more refuse the pod, until it has a certificate of another CA"
			return map[string]string{"": fmt.Sprintf(format, name)}
		}
		return nil
	}
	files := func(m Memory) map[string]string {
		if m.AllDistrusted(spec.Trust, now) {
			return map[string]string{"": allDistrusted + ": its files of CA certificates are empty, and a program " +
				"that uses them trusts nobody, or can't load them"}
		}
		return nil
	}
	u.warn(v, "CertificateDistrusted", issuer(before), issuer(after), 0)
	u.warn(v, "TrustBundleEmpty", files(before), files(after), 0)
}
