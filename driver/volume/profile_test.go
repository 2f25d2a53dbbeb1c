package volume_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

const profiles = `
profiles:
  web:
    issuer-name: internal
    issuer-kind: ClusterIssuer
    duration: 30m
    layout: pem,bundle
    dns-names: ${POD_NAME}.${POD_NAMESPACE}.svc
  slow:
    duration: 12h
  keys:
    key-algorithm: RSA
    key-size: "4096"
    fs-group: "7"
    renew-before: 10m
    dns-names: a
namespaces:
  shop: slow
  keys: keys
  "*": web
`

func live(t *testing.T, data map[string]string) volume.Defaults {
	t.Helper()
	p, err := volume.ParseProfiles(data)
	if err != nil {
		t.Fatal(err)
	}
	return volume.Defaults{Defaults: spec.Defaults{Live: &p.Profiles, IssuerName: "of-the-flags", TrustDomain: "example.org"}}
}

func TestProfiles(t *testing.T) {
	defaults := live(t, map[string]string{spec.ProfilesKey: profiles})
	own := map[string]string{"key-algorithm": "ECDSA", "gid": "5", "renew": "false"} // The profile's own of these kinds do not go with them.
	withIssuer := live(t, map[string]string{spec.ProfilesKey: profiles, "issuer-name": "live", "issuer-kind": "ClusterIssuer"})
	ofDrivers := live(t, map[string]string{spec.ProfilesKey: profiles + "drivers: {spiffe.csi.cert-manager.io: web, csi.cert-manager.io: slow}\n"})
	for name, row := range map[string]struct {
		attributes map[string]string
		namespace  string
		driver     string
		defaults   volume.Defaults
		issuer     string // Kind and name.
		duration   time.Duration
	}{
		"a pod that names one":             {map[string]string{"profile": "web"}, "shop", "", defaults, "ClusterIssuer internal", 30 * time.Minute},
		"that of the namespace":            {map[string]string{"dns-names": "a"}, "shop", "", defaults, "Issuer of-the-flags", 12 * time.Hour},
		"that of the other namespaces":     {nil, "other", "", defaults, "ClusterIssuer internal", 30 * time.Minute},
		"the pod's own word counts":        {map[string]string{"duration": "2h"}, "other", "", defaults, "ClusterIssuer internal", 2 * time.Hour},
		"an issuer without the kind":       {map[string]string{"issuer-name": "own"}, "other", "", defaults, "Issuer own", 30 * time.Minute},
		"of what goes together the pod's":  {own, "keys", "", defaults, "Issuer of-the-flags", time.Hour},
		"the live issuer":                  {map[string]string{"dns-names": "a"}, "shop", "", withIssuer, "ClusterIssuer live", 12 * time.Hour},
		"a profile's issuer wins":          {map[string]string{"profile": "web"}, "shop", "", withIssuer, "ClusterIssuer internal", 30 * time.Minute},
		"csi-driver's has no defaults":     {map[string]string{"old:issuer-name": "old"}, "other", spec.OldDriver, withIssuer, "Issuer old", 90 * 24 * time.Hour},
		"csi-driver's can name one":        {map[string]string{"old:issuer-name": "old", "profile": "slow"}, "other", spec.OldDriver, withIssuer, "Issuer old", 12 * time.Hour},
		"csi-driver-spiffe's live issuer":  {nil, "other", spec.SPIFFEDriver, withIssuer, "ClusterIssuer live", time.Hour},
		"csi-driver-spiffe's flags before": {nil, "other", spec.SPIFFEDriver, defaults, "ClusterIssuer of-the-flags", time.Hour},
		"that of a driver":                 {nil, "shop", spec.SPIFFEDriver, ofDrivers, "ClusterIssuer internal", 30 * time.Minute},
		"that of csi-driver's name":        {map[string]string{"old:issuer-name": "old"}, "shop", spec.OldDriver, ofDrivers, "Issuer old", 12 * time.Hour},
		"a name before that of the driver": {map[string]string{"profile": "web", "old:issuer-name": "old"}, "shop", spec.OldDriver, ofDrivers, "Issuer old", 30 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			a := asked(row.attributes)
			a.Driver, a.Attributes["csi.storage.k8s.io/pod.namespace"] = row.driver, row.namespace
			v, err := volume.Parse(a, row.defaults)
			if err != nil || v.Issuer.Kind+" "+v.Issuer.Name != row.issuer || v.Duration != row.duration {
				t.Fatalf("%+v, %s (%v)", v.Issuer, v.Duration, err)
			}
			// What the record has stands in for profiles that are not known.
			a.Profile, row.defaults.Live = v.Profile, nil
			again, err := volume.Parse(a, row.defaults)
			if err != nil || again.Issuer != v.Issuer || again.Duration != v.Duration || len(again.Files) != len(v.Files) {
				t.Errorf("from the record: %+v, %s (%v)", again.Issuer, again.Duration, err)
			}
		})
	}
}

func TestAProfileThatIsNotThere(t *testing.T) {
	for want, defaults := range map[string]volume.Defaults{
		`csi.mayfly.dev/profile is "wbe": known are keys, slow, web`:                                       live(t, map[string]string{spec.ProfilesKey: profiles}),
		`csi.mayfly.dev/profile is "wbe": there are none`:                                                  live(t, nil),
		`csi.mayfly.dev/profile is "wbe", and this driver has no profiles: its operator sets --config-map`: {},
	} {
		_, err := volume.Parse(asked(map[string]string{"profile": "wbe", "issuer-name": "ca", "dns-names": "a"}), defaults)
		if err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestAValueOfTheProfileThatDoesNotFit(t *testing.T) {
	defaults := live(t, map[string]string{spec.ProfilesKey: "profiles: {a: {common-name: '${POD_NAME}${POD_NAME}'}}"})
	a := asked(map[string]string{"profile": "a", "issuer-name": "ca"})
	a.Attributes["csi.storage.k8s.io/pod.name"] = strings.Repeat("web", 20)
	if _, err := volume.Parse(a, defaults); err == nil || !strings.HasPrefix(err.Error(), `csi.mayfly.dev/common-name (of the profile) has "webweb`) {
		t.Errorf("%v", err)
	}
}

// What an operator writes is bounded, also with what aliases stand for.
func TestBoundsOfProfiles(t *testing.T) {
	long := strings.Repeat("a", 4096)
	for _, row := range []struct {
		name, text string
		want       string // Empty: it is taken.
	}{
		{"aliases", "profiles: {a: &a {duration: 1h}, b: *a, c: {<<: *a, issuer-name: ca}}", ""},
		{"many aliases", "profiles:\n  a: {organizations: &a '" + long + "'}\n" + repeat(200, "\n  b%d: {organizations: *a}"),
			"profiles.yaml has more than 524288 bytes once its aliases are replaced"},
		{"aliases of aliases", "a: &a [" + strings.Repeat("a,", 99) + "]\nb: &b [" + strings.Repeat("*a,", 99) + "]\nc: &c [" +
			strings.Repeat("*b,", 99) + "]\nd: [" + strings.Repeat("*c,", 99) + "]", "profiles.yaml has more than 524288 bytes once"},
		{"an alias of itself", "profiles: &a {a: *a}", "profiles.yaml "},
		{"an attribute", "profiles: {a: {organizations: '" + strings.Repeat(" ", 65<<10) + "'}}",
			`profile "a": organizations has 66560 bytes: at most 65536`},
		{"many namespaces", "profiles: {a: {duration: 1h}}\nnamespaces: {" + repeat(100, "n%d: b") + "}", `namespace "n1": there is no profile "b"; `},
	} {
		text := strings.ReplaceAll(row.text, ",\n", "\n")
		_, err := volume.ParseProfiles(map[string]string{spec.ProfilesKey: text})
		if (err == nil) != (row.want == "") || err != nil && !strings.HasPrefix(err.Error(), row.want) {
			t.Errorf("%s: got  %.200v\nwant %s", row.name, err, row.want)
		}
		var problems problem.List
		if errors.As(err, &problems); len(problems) > 16 {
			t.Errorf("%s: %d problems", row.name, len(problems))
		}
	}
	data := map[string]string{}
	for i := range 1000 {
		data[fmt.Sprintf("profile-%d", i)] = ""
	}
	_, err := volume.ParseProfiles(data)
	var problems problem.List
	if errors.As(err, &problems); len(problems) != 16 {
		t.Errorf("%d keys that are not known", len(problems))
	}
}

// A pod's author reads the names of some of the profiles.
func TestManyProfiles(t *testing.T) {
	defaults := live(t, map[string]string{spec.ProfilesKey: "profiles: {" + repeat(1000, "p%03d: {duration: 1h}") + "}"})
	_, err := volume.Parse(asked(map[string]string{"profile": "a", "issuer-name": "ca", "dns-names": "web"}), defaults)
	if err == nil || !strings.HasPrefix(err.Error(), `csi.mayfly.dev/profile is "a": known are p001, p002, `) || !strings.HasSuffix(err.Error(), "p016, 984 more") {
		t.Error(err)
	}
}

func TestProfilesThatAreWrong(t *testing.T) {
	for text, want := range map[string]string{
		"profiles: [a]":                                       "profiles.yaml is not understood: ",
		"profile: {a: {duration: 1h}}":                        `profiles.yaml is not understood: error unmarshaling JSON: while decoding JSON: json: unknown field "profile"`,
		"profiles: {a: {}}":                                   `profile "a" has no values`,
		"profiles: {a: {duration: 1 hour}}":                   `profile "a": duration is "1 hour", which is not a duration such as 30m or 24h`,
		"profiles: {a: {csi.mayfly.dev/duration: 1h}}":        `profile "a": "csi.mayfly.dev/duration" is not an attribute of profiles: did you mean duration?`,
		"profiles: {a: {keystore-password: secret}}":          `profile "a": "keystore-password" is not an attribute of profiles: did you mean keystore-alias?`,
		"profiles: {a: {profile: b}}":                         `profile "a": "profile" is not an attribute of profiles: did you mean `,
		"profiles: {a: {dns-names: '${POD_NAEM}'}}":           `profile "a": dns-names has an unknown variable "${POD_NAEM}"`,
		"profiles: {a: {duration: 1h}}\nnamespaces: {x: b}":   `namespace "x": there is no profile "b"`,
		"profiles: {a: {duration: 1h}}\ndrivers: {x: b}":      `driver "x": there is no profile "b"`,
		"profiles: {a: {example.org/a b: x}}":                 `profile "a": "example.org/a b" can't be an annotation of the request: `,
		"profiles: {a: {csi.mayfly.de/duration: x}}":          `profile "a": "csi.mayfly.de/duration" is not an attribute of profiles: did you mean duration?`,
		"profiles: {a: {duration: 1h, duration: 2h}}":         "profiles.yaml is not understood: ",
		"profiles: {a: {mode: 0x}, b: {renew-window: never}}": `profile "a": mode is "0x": a file's mode is three octal digits, such as 0440; profile "b": renew-window is "never"`,
	} {
		if _, err := volume.ParseProfiles(map[string]string{spec.ProfilesKey: text}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
	for key, want := range map[string]string{
		"profile.yaml": `the key "profile.yaml" is not known: did you mean profiles.yaml?`,
		"issuer-knd":   `the key "issuer-knd" is not known: did you mean issuer-kind?`,
	} {
		if _, err := volume.ParseProfiles(map[string]string{key: "x"}); err == nil || err.Error() != want {
			t.Errorf("%s: %v", key, err)
		}
	}
	p, err := volume.ParseProfiles(nil)
	if err != nil {
		t.Errorf("a ConfigMap that is empty, or does not exist: %v", err)
	}
	v, err := volume.Parse(asked(map[string]string{"issuer-name": "ca", "dns-names": "a"}), volume.Defaults{Defaults: spec.Defaults{Live: &p.Profiles}})
	if err != nil || v.Issuer != (signer.Issuer{Name: "ca", Kind: "Issuer", Group: "cert-manager.io"}) {
		t.Errorf("%+v (%v)", v.Issuer, err)
	}
}

// A volume stays as it was where the ConfigMap is gone. Where that has no profile for it any more, the volume has none.
func TestAProfileThatIsGone(t *testing.T) {
	a := asked(nil)
	a.Attributes["csi.storage.k8s.io/pod.namespace"] = "other"
	v, err := volume.Parse(a, live(t, map[string]string{spec.ProfilesKey: profiles}))
	if err != nil {
		t.Fatal(err)
	}
	a.Profile = v.Profile
	again, err := volume.Parse(a, volume.Defaults{Defaults: spec.Defaults{Live: &spec.Profiles{}}})
	if err != nil || again.Issuer != v.Issuer || len(again.Files) != len(v.Files) {
		t.Errorf("%+v, %v (%v)", again.Issuer, again.Files, err)
	}
	if again, err = volume.Parse(a, live(t, nil)); err == nil || again.Profile != nil {
		t.Errorf("%v (%v)", again.Profile, err)
	}
}
