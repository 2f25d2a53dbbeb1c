package volume_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// What a PodCertificateRequest can't say is refused where certificates are asked for by those, and there alone.
func TestWhatPodCertificateRequestsCantSay(t *testing.T) {
	const (
		by       = ", and this driver asks by PodCertificateRequests (--signer=pod-certificate), "
		rsa      = by + `which take RSA keys of 3072 or 4096 bits: set PREFIX/key-size: "3072", or PREFIX/key-algorithm: ECDSA`
		duration = by + "which take 1h to 2184h (91 days), in whole seconds: set PREFIX/duration to one of those"
		token    = by + `as the node and never as the pod: set PREFIX/use-token-request: "false"`
		ours     = "csi.mayfly.dev"
		old      = "csi.cert-manager.io"
	)
	for attributes, want := range map[string]string{
		"dns-names=web":                                 "",
		"key-algorithm=Ed25519":                         "",
		"key-algorithm=ECDSA key-size=521":              "",
		"key-algorithm=RSA":                             "", // 3072 bits.
		"key-algorithm=RSA key-size=4096 duration=1h":   "",
		"duration=2184h":                                "",
		"use-token-request=false":                       "",
		"old:key-size=3072":                             "",
		"old:key-algorithm=ECDSA":                       "",
		"key-algorithm=RSA key-size=2048":               "PREFIX/key-size is 2048" + rsa,
		"key-algorithm=RSA key-size=8192":               "PREFIX/key-size is 8192" + rsa,
		"key-algorithm=RSA key-size=1024":               "PREFIX/key-size is 1024: RSA keys have 2048 to 8192 bits",
		"old:duration=24h":                              "old:PREFIX/key-size is 2048 if absent" + rsa,
		"old:key-algorithm=ECDSA old:duration=2184h1s":  "old:PREFIX/duration is 2184h0m1s" + duration,
		"duration=59m":                                  "PREFIX/duration is 59m0s" + duration,
		"duration=2184h1s":                              "PREFIX/duration is 2184h0m1s" + duration,
		"duration=1h0m0.5s":                             "PREFIX/duration is 1h0m0.5s" + duration,
		"duration=90d":                                  `PREFIX/duration is "90d", which is not a duration such as 30m or 24h`,
		"use-token-request=true":                        "PREFIX/use-token-request is true" + token,
		"profile=asking use-token-request=false":        "",
		"profile=short":                                 "PREFIX/duration (of the profile) is 10m0s" + duration,
		"profile=short duration=2h":                     "",
		"profile=weak":                                  "PREFIX/key-size (of the profile) is 2048" + rsa,
		"profile=asking":                                "PREFIX/use-token-request (of the profile) is true" + token,
		"duration=1m key-algorithm=RSA key-size=2048":   "PREFIX/key-size is 2048" + rsa + "; PREFIX/duration is 1m0s" + duration,
		"use-token-request=true duration=1h key-size=1": "PREFIX/key-size is 1: ECDSA keys have 256, 384 or 521 bits; PREFIX/use-token-request is true" + token,
	} {
		given := map[string]string{"issuer-name": "ca", "dns-names": "web"}
		for _, pair := range strings.Fields(attributes) {
			name, value, _ := strings.Cut(pair, "=")
			given[name] = value
		}
		defaults := volume.Defaults{Defaults: spec.Defaults{PodCertificates: true, Live: &spec.Profiles{Profiles: map[string]spec.Profile{
			"short": {"duration": "10m"}, "weak": {"key-algorithm": "RSA", "key-size": "2048"}, "asking": {"use-token-request": "true"},
		}}}}
		prefix := ours
		if rest, is := strings.CutPrefix(want, "old:"); is {
			prefix, want = old, rest
		}
		got := ""
		if _, err := volume.Parse(asked(given), defaults); err != nil {
			got = err.Error()
		}
		if want = strings.ReplaceAll(want, "PREFIX", prefix); got != want {
			t.Errorf("%s:\n got %s\nwant %s", attributes, got, want)
		}
		defaults.PodCertificates = false
		if _, err := volume.Parse(asked(given), defaults); err != nil && strings.Contains(fmt.Sprint(err), "PodCertificateRequests") {
			t.Errorf("%s, of another signer: %v", attributes, err)
		}
	}
}

// A volume asks as its pod where the driver's operator says so, and never because its author does: it would ask past mayfly-controller.
func TestWhoSaysThatAVolumeAsksAsItsPod(t *testing.T) {
	const refused = "PREFIX/use-token-request is true, and no volume asks as its pod unless the operator of this driver says so, " +
		"by --use-token-request or a profile: leave it out"
	live := &spec.Profiles{Profiles: map[string]spec.Profile{
		"asking": {"use-token-request": "true"}, "other": {"duration": "2h"}, "never": {"use-token-request": "false"},
	}}
	for _, row := range []struct {
		flag       bool
		attributes string
		want       string
	}{
		{false, "", "false"},
		{false, "use-token-request=false", "false"},
		{false, "use-token-request=true", refused},
		{false, "use-token-request=true profile=other", refused},
		{false, "use-token-request=true profile=never", refused},
		{false, "profile=asking", "true"},
		{false, "profile=asking use-token-request=true", "true"},
		{false, "profile=asking use-token-request=false", "false"},
		{true, "", "true"},
		{true, "use-token-request=true", "true"},
		{true, "use-token-request=false", "false"},
		{true, "profile=never", "false"},
	} {
		for _, d := range []dialect{ours, old} {
			given := asked(nil)
			given.Driver = d.driver
			for _, pair := range strings.Fields(d.base + " " + row.attributes) {
				name, value, _ := strings.Cut(pair, "=")
				given.Attributes[d.key(name)] = value
			}
			v, err := volume.Parse(given, volume.Defaults{Defaults: spec.Defaults{AsPod: row.flag, Live: live}})
			got := fmt.Sprint(v.AsPod)
			if err != nil {
				got = err.Error()
			}
			if want := strings.ReplaceAll(row.want, "PREFIX", "csi.mayfly.dev"); got != want {
				t.Errorf("%s: --use-token-request=%v, %s\n got %s\nwant %s", d.prefix, row.flag, row.attributes, got, want)
			}
		}
	}
}
