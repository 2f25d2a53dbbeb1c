package volume_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// The line as the pod's author reads it.
func TestAllMistakesAreReportedTogether(t *testing.T) {
	a := asked(map[string]string{
		"issuer-nam": "ca", "dns-names": "web,b\u00fccher.example,${POD_NAME}.", "ip-sans": "10.0.0.256", "duration": "90d", "key-algorithm": "Ed25519",
		"key-size": "2048", "gid": "1", "fs-group": "2", "layout": "bundle", "ca-file": "root.pem",
	})
	_, err := volume.Parse(a, volume.Defaults{})
	want := []string{
		`"csi.mayfly.dev/issuer-nam" is not a known attribute: did you mean csi.mayfly.dev/issuer-name?`,
		`csi.mayfly.dev/issuer-name is required: the name of the issuer that signs`,
		`csi.mayfly.dev/dns-names has "b\u00fccher.example", which is not a DNS name: write it in ASCII, as xn--…`,
		`csi.mayfly.dev/dns-names has "web-0.", which is not a DNS name here: leave the last dot out`,
		`csi.mayfly.dev/ip-sans has "10.0.0.256", which is not an IP address such as 10.0.0.1 or fd00::1`,
		`csi.mayfly.dev/duration is "90d", which is not a duration such as 30m or 24h`,
		`csi.mayfly.dev/key-size is 2048: Ed25519 keys have no size`,
		`csi.mayfly.dev/gid is given, and fs-group, too: give one of them`,
		`csi.mayfly.dev/ca-file is given, and layout has no pem, whose file it is`,
	}
	if err == nil || err.Error() != strings.Join(want, "; ") {
		t.Errorf("got  %v\nwant %s", err, strings.Join(want, "; "))
	}
}

// One mistake is told once: nothing that follows from it is.
func TestAMistakeBringsNoOthers(t *testing.T) {
	for _, row := range []struct{ attributes, want string }{
		{"ca-file=a/b layout=pem,pkcs12 keystore-password=secret pkcs12-filename=k.p12", `csi.mayfly.dev/ca-file is "a/b": a file name, not a path`},
		{"dns-names=a..b", `csi.mayfly.dev/dns-names has "a..b", which is not a DNS name`},
		{"key-algorithm=DSA key-size=2048 key-encoding=PKCS1", `csi.mayfly.dev/key-algorithm is "DSA": known are RSA, ECDSA and Ed25519`},
		{"fs-group=x gid=1", `csi.mayfly.dev/fs-group is "x": an id is 1 to 4294967294`},
		{"spiffe=yes layout=spiffe", `csi.mayfly.dev/spiffe is "yes": true or false`},
		{"layout=der keystore-password=secret ca-file=a", `csi.mayfly.dev/layout has "der": known are pem, bundle, combined, istio, gke, spiffe, pkcs12, jks`},
	} {
		a := asked(map[string]string{"issuer-name": "ca", "dns-names": "web"})
		for _, pair := range strings.Fields(row.attributes) {
			name, value, _ := strings.Cut(pair, "=")
			a.Attributes[spec.Prefix+name] = value
		}
		if _, err := volume.Parse(a, volume.Defaults{}); err == nil || err.Error() != row.want {
			t.Errorf("%s: %v", row.attributes, err)
		}
	}
}

// An event has 1024 characters. What the kubelet puts before our line is as long as a volume's name lets it be.
func TestTheLineFitsInAnEvent(t *testing.T) {
	everything := map[string]string{"team": "shop"}
	for _, a := range volume.Attributes() {
		if !a.OnlyOld && !a.Secret {
			everything[a.Name] = strings.Repeat("\x00", 300)
		}
	}
	_, err := volume.Parse(asked(everything), volume.Defaults{})
	var problems problem.List
	if !errors.As(err, &problems) || len(problems) < 30 {
		t.Fatalf("%d problems: %v", len(problems), err)
	}
	event := fmt.Sprintf("MountVolume.SetUp failed for volume %q : rpc error: code = InvalidArgument desc = %s", strings.Repeat("v", 63), err)
	shown := strings.Count(err.Error(), "; ")
	if len(event) > 1024 || !strings.HasPrefix(err.Error(), `"csi.mayfly.dev/team" is not a known attribute; `) || !strings.HasSuffix(err.Error(), fmt.Sprintf("; and %d more", len(problems)-shown)) {
		t.Errorf("%d characters: %s", len(event), event)
	}
	for _, p := range problems {
		if len(p.Error()) > 300 {
			t.Errorf("a problem has %d characters: %v", len(p.Error()), p)
		}
	}
}

// What no attribute has, but the volume as a whole, or the call.
func TestMistakesOfTheWhole(t *testing.T) {
	many, good := map[string]string{}, map[string]string{"issuer-name": "ca", "dns-names": "web"}
	for i := range 260 {
		many[fmt.Sprintf("example.org/%d", i)] = ""
	}
	for _, row := range []struct {
		name string
		edit func(a *volume.Asked)
		want string
	}{
		{"many attributes", func(a *volume.Asked) { a.Attributes = asked(many).Attributes }, "volumeAttributes are 260: at most 256"},
		{"large annotations", func(a *volume.Asked) { a.Attributes["example.org/a"] = strings.Repeat("x", 256<<10) }, "volumeAttributes have 262383 bytes, with those of the kubelet: at most 262144"},
		{"an annotation that is no text", func(a *volume.Asked) { a.Attributes["example.org/a"] = "\xff" }, `"example.org/a" can't be an annotation of the request: its value is not valid UTF-8`},
		{"a value that is no text", func(a *volume.Asked) { a.Attributes["csi.mayfly.dev/organizations"] = "\xff" }, "csi.mayfly.dev/organizations is not valid UTF-8"},
		{"a variable without an end", func(a *volume.Asked) { a.Attributes["csi.mayfly.dev/dns-names"] = "${POD_NAME.web" }, `csi.mayfly.dev/dns-names is "${POD_NAME.web", with a variable that has no end or no name`},
		{"a password in a URI", func(a *volume.Asked) { a.Attributes["csi.mayfly.dev/uri-sans"] = "https://user:secret@example.org/" }, `csi.mayfly.dev/uri-sans has a URI of "example.org" with a password, which all could read in the certificate`},
		{"a group", func(a *volume.Asked) { a.Group = "-1" }, `fsGroup is "-1": an id is 0 to 4294967294`},
		{"a flag", func(a *volume.Asked) { a.MountFlags = []string{"context=a\"b"} }, `mount_flags have "context=a\"b": only context= is known`},
	} {
		a := asked(good)
		row.edit(&a)
		if _, err := volume.Parse(a, volume.Defaults{}); err == nil || !strings.HasPrefix(err.Error(), row.want) {
			t.Errorf("%s: %v\nwant %s", row.name, err, row.want)
		}
	}
}

// What the operator sets, and no volume could do with.
func TestDefaultsThatNoVolumeCanUse(t *testing.T) {
	for _, row := range []struct {
		volume.Defaults
		want string
	}{
		{volume.Defaults{Defaults: spec.Defaults{TrustDomain: "example.org:443"}}, `"example.org:443" is not the name of a trust domain`},
		{volume.Defaults{Defaults: spec.Defaults{TrustDomain: "a..b"}}, `a certificate can't hold "spiffe://a..b/ns/namespace/sa/account"`},
		{volume.Defaults{Defaults: spec.Defaults{TrustDomain: "Example.org"}}, "trust domain characters are limited to lowercase letters"},
		{volume.Defaults{Defaults: spec.Defaults{TrustDomain: "a", SPIFFEPath: "/${POD}"}}, `the path has an unknown variable "${POD}"`},
		{volume.Defaults{Defaults: spec.Defaults{TrustDomain: "a", SPIFFEPath: "/${POD_NAME"}}, `the path is "/${POD_NAME", with a variable that has no end or no name`},
	} {
		if err := row.Check(); err == nil || !strings.HasPrefix(err.Error(), row.want) {
			t.Errorf("%+v: %v", row.Defaults, err)
		}
	}
}
