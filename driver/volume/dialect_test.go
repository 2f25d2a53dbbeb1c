package volume_test

import (
	"fmt"
	"maps"
	"reflect"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

func TestDriverNames(t *testing.T) {
	for text, want := range map[string]string{
		"csi.mayfly.dev":                        "{csi.mayfly.dev mayfly} csi.mayfly.dev",
		"csi.cert-manager.io":                   "{csi.cert-manager.io csi-driver} csi.cert-manager.io",
		"spiffe.csi.cert-manager.io":            "{spiffe.csi.cert-manager.io csi-driver-spiffe} spiffe.csi.cert-manager.io",
		"corp.example":                          "{corp.example mayfly} corp.example",
		"corp.example=csi-driver":               "{corp.example csi-driver} corp.example=csi-driver",
		"corp.example=mayfly":                   "{corp.example mayfly} corp.example",
		"csi.cert-manager.io=mayfly":            "{csi.cert-manager.io mayfly} csi.cert-manager.io=mayfly",
		"csi.cert-manager.io=csi-driver-spiffe": "{csi.cert-manager.io csi-driver-spiffe} csi.cert-manager.io=csi-driver-spiffe",
		"a=":                                    `"" is not a dialect: there are mayfly, csi-driver, csi-driver-spiffe`,
	} {
		name, err := spec.ParseDriverName(text)
		got := fmt.Sprint(err)
		if err == nil {
			type plain spec.DriverName // Without String.
			got = fmt.Sprint(plain(name), " ", name)
		}
		if got != want {
			t.Errorf("%s: %s\nwant %s", text, got, want)
		}
	}
}

// A driver of another name may have the dialect of one.
func TestTheDialectOfAnotherName(t *testing.T) {
	for of, d := range map[spec.Dialect]dialect{spec.Mayfly: ours, spec.CSIDriver: old, spec.CSIDriverSPIFFE: mesh} {
		a := asked(nil)
		if d != mesh {
			a.Attributes[d.key("issuer-name")], a.Attributes[d.key("dns-names")] = "ca", "web"
		}
		a.Driver = d.driver
		defaults := volume.Defaults{Defaults: spec.Defaults{IssuerName: "mesh", TrustDomain: "example.org"}}
		want, err := volume.Parse(a, defaults)
		if err != nil {
			t.Fatal(err)
		}
		for _, driver := range []string{"corp.example", spec.Driver, spec.OldDriver, spec.SPIFFEDriver} {
			a.Driver, a.Dialect = driver, of
			if got, err := volume.Parse(a, defaults); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s=%s: %+v (%v)\nwant %+v", driver, of, got, err, want)
			}
		}
	}
}

// What csi-driver-spiffe gives to all volumes (its internal/csi/driver), and what an operator's profile says instead.
func TestVolumesOfCSIDriverSPIFFE(t *testing.T) {
	a := asked(nil)
	a.Driver = spec.SPIFFEDriver
	defaults := live(t, map[string]string{spec.ProfilesKey: `
profiles:
  mesh: {duration: 2h, certificate-file: cert.pem, privatekey-file: key.pem, ca-file: roots.pem, example.org/team: mesh}
  none: {spiffe: "false", dns-names: web, key-usages: server auth, layout: bundle}
drivers: {corp.example: mesh, none.example: none}
`})
	v, err := volume.Parse(a, defaults)
	if err != nil {
		t.Fatal(err)
	}
	const id, identity = "spiffe://example.org/ns/shop/sa/web", "spiffe.csi.cert-manager.io/identity"
	if v.Key != (spec.Key{Algorithm: spec.ECDSA, Size: 256, Encoding: spec.PKCS8}) || v.Duration != time.Hour || v.SignsUsages || v.NamesUsages ||
		usages(v) != "digital signature,key encipherment,server auth,client auth" || names(v) != "ca.crt tls.crt tls.key" || *v.Owner.Mode != 0o440 ||
		joined(v.URIs) != id || !maps.Equal(v.Annotations, map[string]string{identity: id}) || v.Issuer.Kind != "ClusterIssuer" {
		t.Errorf("%+v", v)
	}
	a.Driver, a.Dialect = "corp.example", spec.CSIDriverSPIFFE
	if v, err = volume.Parse(a, defaults); err != nil || v.Duration != 2*time.Hour || names(v) != "cert.pem key.pem roots.pem" ||
		!maps.Equal(v.Annotations, map[string]string{identity: id, "example.org/team": "mesh"}) {
		t.Errorf("with a profile: %+v (%v)", v, err)
	}
	a.Driver = "none.example"
	if v, err = volume.Parse(a, defaults); err != nil || len(v.URIs)+len(v.Annotations) > 0 || usages(v) != "server auth" || names(v) != "credential-bundle.pem" {
		t.Errorf("with a profile of other names: %+v (%v)", v, err)
	}
}

// The pod's own annotation counts before that of the profile.
func TestAnnotationsOfAProfile(t *testing.T) {
	defaults := live(t, map[string]string{spec.ProfilesKey: "profiles: {a: {example.org/team: ops, example.org/tier: gold}}"})
	v, err := volume.Parse(asked(map[string]string{"profile": "a", "issuer-name": "ca", "dns-names": "web", "example.org/team": "shop"}), defaults)
	if err != nil || !maps.Equal(v.Annotations, map[string]string{"example.org/team": "shop", "example.org/tier": "gold"}) {
		t.Errorf("%v (%v)", v.Annotations, err)
	}
}

// An earlier driver knew the attributes of csi-driver under two prefixes, in volumes of any name.
func TestVolumesThatAnEarlierDriverTook(t *testing.T) {
	theirs := map[string]string{"csi.cert-manager.io/issuer-name": "ca", "csi.cert-manager.io/dns-names": "web", "csi.cert-manager.io/pkcs12-enable": "true", "csi.cert-manager.io/pkcs12-password": "secret", "csi.mayfly.dev/renew": "false"}
	mixed := map[string]string{"csi.mayfly.dev/issuer-name": "ca", "csi.cert-manager.io/dns-names": "web", "csi.cert-manager.io/pkcs12-enable": "true", "csi.cert-manager.io/pkcs12-password": "secret", "csi.mayfly.dev/renew": "false"}
	want, err := volume.Parse(volume.Asked{Asked: spec.Asked{Driver: spec.OldDriver, Attributes: asked(theirs).Attributes}, ID: "csi-1"}, volume.Defaults{})
	if err != nil {
		t.Fatal(err)
	}
	want.Owner.Mode = nil // Every user of the pod read its files.
	for _, driver := range []string{"", spec.Driver, spec.OldDriver, "corp.example"} {
		for _, attributes := range []map[string]string{theirs, mixed} {
			a := volume.Asked{Asked: spec.Asked{Driver: driver, Attributes: asked(attributes).Attributes}, ID: "csi-1"}
			if got, err := volume.ParseEarlier(a, volume.Defaults{}); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%q, %v: %+v (%v)\nwant %+v", driver, attributes, got, err, want)
			}
		}
	}
	for _, row := range []struct {
		attributes map[string]string
		driver     string
		mode       string
	}{
		{map[string]string{"issuer-name": "ca", "dns-names": "web"}, spec.Driver, "<nil>"},
		{map[string]string{"old:issuer-name": "ca", "mode": "0400"}, spec.OldDriver, "-r--------"},
		{nil, spec.SPIFFEDriver, "<nil>"},
	} {
		a := asked(row.attributes)
		a.Driver = row.driver
		v, err := volume.ParseEarlier(a, volume.Defaults{Defaults: spec.Defaults{IssuerName: "mesh", TrustDomain: "example.org"}})
		got := "<nil>"
		if v.Owner.Mode != nil {
			got = v.Owner.Mode.String()
		}
		if err != nil || got != row.mode {
			t.Errorf("%s: the mode is %s, want %s (%v)", row.driver, got, row.mode, err)
		}
	}
	if _, err := volume.ParseEarlier(asked(map[string]string{"csi.mayfly.dev/layuot": "pem"}), volume.Defaults{}); err == nil {
		t.Error("what is wrong in every driver is taken")
	}
}

// The last resolution of an earlier driver named the dialect otherwise.
func TestTheDialectOfAnEarlierResolution(t *testing.T) {
	for text, want := range map[string]spec.Dialect{
		`{"ID":"csi-1","Old":true}`: spec.CSIDriver, `{"ID":"csi-1"}`: "", `{"ID":"csi-1","Dialect":"csi-driver-spiffe"}`: spec.CSIDriverSPIFFE,
	} {
		if v, err := volume.Decode([]byte(text)); err != nil || v.Dialect != want {
			t.Errorf("%s: %q (%v)", text, v.Dialect, err)
		}
	}
}

func TestWhatADialectSays(t *testing.T) {
	for d, want := range map[spec.Dialect]string{"": "false 0 false", spec.Mayfly: "false 0 false", spec.CSIDriver: "true 1 false", spec.CSIDriverSPIFFE: "false 1 true"} {
		if got := fmt.Sprint(d.Lenient(), " ", volume.KeepRequests(d), " ", volume.TrustAsIs(d)); got != want {
			t.Errorf("%q: %s, want %s", d, got, want)
		}
	}
}
