package driver_test

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/spec"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// unknown is an attribute that no driver knows: to a record it does what a stricter parser does.
const unknown = "csi.mayfly.dev/no-such-attribute"

// settings are those of a node whose operator changes them.
type settings struct {
	*node
	profiles *someProfiles

	mu       sync.Mutex
	change   func(*driver.Config) // nil: nothing.
	registry *prometheus.Registry // Of the driver that runs.
	told     []string
}

func newSettings(t *testing.T, profiles *volume.Profiles) *settings {
	t.Helper()
	s := &settings{}
	if profiles != nil {
		s.profiles = &someProfiles{now: profiles}
	}
	s.node = newNode(t, func(c *driver.Config) {
		s.registry = prometheus.NewRegistry()
		c.Defaults = volume.Defaults{Defaults: spec.Defaults{IssuerName: "default", TrustDomain: "example.org"}}
		c.Metrics, c.Events = s.registry, eventFunc(s.tell)
		if s.profiles != nil {
			c.Profiles = s.profiles
		}
		if s.change != nil {
			s.change(c)
		}
	})
	return s
}

func (s *settings) tell(message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, message)
}

// events counts those that say that earlier settings count.
func (s *settings) events() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, message := range s.told {
		const words = "the driver's settings don't fit this volume any more, and those of before count: "
		if strings.HasPrefix(message, "shop/web-0 EarlierSettings: volume tls: "+words) {
			n++
		}
	}
	return n
}

// misfits demands how many volumes have earlier settings.
func (s *settings) misfits(want float64) {
	s.t.Helper()
	if got := gauge(s.t, s.registry, "mayfly_volumes_with_earlier_settings"); got != want {
		s.t.Errorf("%v volumes have earlier settings, want %v", got, want)
	}
}

// renewed waits for another certificate, and demands that it was asked for as the one before.
func (s *settings) renewed(v kubelet.Volume) {
	s.t.Helper()
	target := s.Target(v)
	before, asked := certificate(s.t, target), s.signer.asked()
	s.renew(v)
	until(s.t, "the renewal", func() bool { return !certificate(s.t, target).Equal(before) })
	until(s.t, "its end", func() bool { return s.record(v).Attempt == "" })
	again := s.signer.asked()
	if got, want := says(s.t, again[len(again)-1]), says(s.t, asked[len(asked)-1]); got != want {
		s.t.Errorf("asked for %s\nbefore for %s", got, want)
	}
}

// says is what a request asks for.
func says(t *testing.T, r signer.Request) string {
	t.Helper()
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		t.Fatal(err)
	}
	names := fmt.Sprint(csr.Subject, csr.DNSNames, csr.IPAddresses, csr.URIs)
	return fmt.Sprint(names, r.Issuer, r.Duration, r.Usages, r.IsCA, r.Annotations)
}

// amend changes the record's text. The driver must be stopped.
func (n *node) amend(v kubelet.Volume, change func(record map[string]any)) {
	n.t.Helper()
	n.spoil(v, func(text []byte) []byte {
		record := map[string]any{}
		err := json.Unmarshal(text, &record)
		change(record)
		text, again := json.Marshal(record)
		must(n.t, err, again)
		return text
	})
}

// attributes are those that the record has.
func attributes(record map[string]any) map[string]any {
	return record["asked"].(map[string]any)["attributes"].(map[string]any)
}

// A pod that runs keeps its rotation, whatever becomes of the driver's settings.
func TestSettingsThatDoNotFitAnyMore(t *testing.T) {
	t.Parallel()
	profiles := profile("issuer-name=profiled", "duration=20m")
	without := func(v kubelet.Volume, name string) kubelet.Volume {
		maps.DeleteFunc(v.Attributes, func(key, _ string) bool { return key == "csi.mayfly.dev/"+name })
		return v
	}
	profiled := without(without(web("csi.mayfly.dev/profile=web"), "issuer-name"), "duration")
	type row struct {
		volume   kubelet.Volume
		profiles *volume.Profiles
		now      *volume.Profiles     // From then on.
		change   func(*driver.Config) // From the restart on.
		stricter bool                 // So is the parser.
		fits     bool                 // All the same.
	}
	other := &volume.Profiles{Profiles: spec.Profiles{Profiles: map[string]spec.Profile{"other": {"duration": "1h"}}}}
	first := func(c *driver.Config) {
		endpoint := filepath.Join(c.KubeletRoot, "plugins", "first.example.org", "csi.sock")
		c.Names = slices.Insert(c.Names, 0, driver.Name{Name: "first.example.org", Endpoint: endpoint})
	}
	noDomain := func(c *driver.Config) { c.Defaults.TrustDomain = "" }
	noIssuer := func(c *driver.Config) { c.Defaults.IssuerName = "" }
	noProfiles := func(c *driver.Config) { c.Profiles = nil }
	for name, row := range map[string]row{
		"no trust domain":        {volume: web("csi.mayfly.dev/spiffe=true"), change: noDomain},
		"no issuer":              {volume: without(web(), "issuer-name"), change: noIssuer},
		"no such profile":        {volume: profiled, profiles: profiles, now: other},
		"profiles empty":         {volume: profiled, profiles: profiles, now: &volume.Profiles{}},
		"no ConfigMap":           {volume: profiled, profiles: profiles, change: noProfiles, fits: true},
		"stricter parser":        {volume: web(), stricter: true},
		"another order of names": {volume: web(), change: first, fits: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSettings(t, row.profiles)
			s.publish(row.volume)
			s.renewed(row.volume)
			s.misfits(0)
			want := 1
			if row.fits {
				want = 0
			}
			set := func(change func(*driver.Config), profiles *volume.Profiles, edit func(map[string]any)) {
				must(t, s.stop())
				s.change = change
				if profiles != nil {
					s.profiles.set(profiles, nil)
				}
				if row.stricter {
					s.amend(row.volume, edit)
				}
				s.start()
			}
			set(row.change, row.now, func(r map[string]any) { attributes(r)[unknown] = "x" })
			for range 2 {
				s.renewed(row.volume)
			}
			s.publish(row.volume)
			s.misfits(float64(want))
			until(t, "the event", func() bool { return s.events() >= want })

			set(nil, row.profiles, func(r map[string]any) { delete(attributes(r), unknown) })
			s.renewed(row.volume)
			s.misfits(0)
			if got := s.events(); got != want {
				t.Errorf("%d events, want %d", got, want)
			}
			s.unpublish(row.volume)
			s.empty()
		})
	}
}

// While the driver runs, its profiles change without a restart.
func TestAProfileThatGoesAndComesBack(t *testing.T) {
	profiles := profile("issuer-name=profiled")
	s := newSettings(t, profiles)
	v := web("csi.mayfly.dev/profile=web")
	delete(v.Attributes, "csi.mayfly.dev/issuer-name")
	s.publish(v)
	for round := range 2 {
		s.profiles.set(&volume.Profiles{}, nil)
		s.renewed(v)
		s.misfits(1)
		until(t, "the event", func() bool { return s.events() == round+1 })
		s.profiles.set(profiles, nil)
		s.renewed(v)
		s.misfits(0)
	}
	s.profiles.set(&volume.Profiles{}, nil)
	s.renewed(v)
	s.unpublish(v)
	s.misfits(0)
}

// Once the pair has ended, calls say what is wrong, and are never final: the pod that runs keeps its files.
func TestSettingsThatDoNotFitAfterThePairsEnd(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		change func(map[string]any)
		want   string
	}{
		"with a resolution": {func(r map[string]any) { attributes(r)[unknown] = "x" }, "request denied: no more"},
		"without one": {func(r map[string]any) {
			attributes(r)[unknown] = "x"
			delete(r, "resolved")
		}, "the volume is kept as it is: its attributes are not valid any more: "},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSettings(t, nil)
			v := web("csi.mayfly.dev/duration=2s")
			target := s.publish(v)
			s.signer.from(refuse(signer.Denied, "no more"))
			must(t, s.stop())
			s.amend(v, row.change)
			until(t, "the end", func() bool { return time.Now().After(certificate(t, target).NotAfter) })
			s.start()
			before := certificate(t, target)
			for range 2 {
				s.fails(v, row.want)
				s.restart()
			}
			s.misfits(1)
			if !certificate(t, target).Equal(before) {
				t.Error("the pod has other files")
			}
			s.unpublish(v)
			s.empty()
		})
	}
}

// A record that says what was asked in words that are not understood, of a driver that kept no resolution.
func TestARecordThatIsNotUnderstoodKeepsTheVolume(t *testing.T) {
	s := newSettings(t, nil)
	v := web()
	target := s.publish(v)
	before := pair(t, target)
	must(t, s.stop())
	s.amend(v, func(r map[string]any) {
		attributes(r)[unknown] = "x"
		delete(r, "resolved")
	})
	s.start()
	s.publish(v)
	unmount(t, target)
	s.publish(v) // As after a kubelet that took the mount away.
	s.misfits(1)
	until(t, "the event", func() bool { return s.events() == 1 })
	if asked := len(s.signer.asked()); asked != 1 || !pair(t, target).Equal(before) {
		t.Errorf("the signer was asked %d times", asked)
	}
	s.unpublish(v)
	s.empty()
	s.misfits(0)
}
