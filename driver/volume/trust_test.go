package volume_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// withFiles are the defaults of a driver that has two files.
var withFiles = volume.Defaults{TrustFiles: []string{"corp", "mesh"}}

func trust(t *testing.T, value string) (volume.Volume, error) {
	t.Helper()
	return volume.Parse(asked(map[string]string{"issuer-name": "ca", "dns-names": "web", "trust": value}), withFiles)
}

func TestSources(t *testing.T) {
	issuer := volume.Source{Kind: volume.IssuerSource}
	rows := []struct {
		value string
		want  []volume.Source
		words string // As String has them, where that is not the value.
	}{
		{"", []volume.Source{issuer}, "issuer"},
		{"issuer", []volume.Source{issuer}, ""},
		{"issuer,public", []volume.Source{issuer, {Kind: volume.PublicSource}}, ""},
		{"file:corp,issuer", []volume.Source{{Kind: volume.FileSource, Name: "corp"}, issuer}, ""},
		{" issuer , issuer,", []volume.Source{issuer}, "issuer"},
		{"config-map:corp-ca/ca.crt", []volume.Source{{Kind: volume.ConfigMapSource, Namespace: "shop", Name: "corp-ca", Key: "ca.crt"}}, ""},
		{"cluster-trust-bundle:corp", []volume.Source{{Kind: volume.BundleSource, Name: "corp"}}, ""},
		{"cluster-trust-bundle:example.org:ca:v1", []volume.Source{{Kind: volume.BundleSource, Name: "example.org:ca:v1"}}, ""},
		{"cluster-trust-bundle:example.org/ca", []volume.Source{{Kind: volume.BundleSource, Signer: "example.org/ca"}}, ""},
		{"cluster-trust-bundle:example.org/ca?tier=web&a.org/b=", []volume.Source{{Kind: volume.BundleSource, Signer: "example.org/ca", Labels: "a.org/b=&tier=web"}},
			"cluster-trust-bundle:example.org/ca?a.org/b=&tier=web"},
		{"cluster-trust-bundle:example.org/ca?a=1&a=1", []volume.Source{{Kind: volume.BundleSource, Signer: "example.org/ca", Labels: "a=1"}}, "cluster-trust-bundle:example.org/ca?a=1"},
	}
	for _, row := range rows {
		v, err := trust(t, row.value)
		if err != nil || !slices.Equal(v.Trust, row.want) {
			t.Errorf("%q: %+v (%v)", row.value, v.Trust, err)
			continue
		}
		var words []string
		for _, s := range v.Trust {
			words = append(words, s.String())
		}
		if want := row.words; strings.Join(words, ",") != want && (want != "" || strings.Join(words, ",") != row.value) {
			t.Errorf("%q: in words %q", row.value, words)
		}
	}
}

func TestSourcesThatAreNone(t *testing.T) {
	long := strings.Repeat("x", 300)
	rows := []struct{ value, want string }{
		{",", `is ",", which names nothing`},
		{"vault:ca", `has "vault:ca": known are issuer, public, cluster-trust-bundle:`},
		{"Issuer", `has "Issuer": known are issuer,`},
		{"public:mozilla", `has "public:mozilla": public stands alone, without a name`},
		{"issuer:ca", `has "issuer:ca": issuer stands alone, without a name`},
		{"config-map:corp-ca", "it lacks the key: config-map:<name>/<key>"},
		{"config-map:corp-ca/", "it lacks the key"},
		{"config-map:/ca.crt", `the ConfigMap's name is "": `},
		{"config-map:Corp/ca.crt", `the ConfigMap's name is "Corp": `},
		{"config-map:../ca.crt", `the ConfigMap's name is "..": `},
		{"config-map:corp/..", `the key is "..": `},
		{"config-map:kube-system/corp/ca.crt", `the key is "corp/ca.crt": `},
		{"config-map:" + long + "/ca.crt", "must be no more than 253"},
		{"cluster-trust-bundle:", `the bundle's name is "": `},
		{"cluster-trust-bundle:a:b", "another number of colons"},
		{"cluster-trust-bundle:a:b:c", "a signer's name is a domain with a dot"},
		{"cluster-trust-bundle:Corp", `the bundle's name is "Corp": `},
		{"cluster-trust-bundle:corp?a=b", "labels go with a signer"},
		{"cluster-trust-bundle:org/ca", "a signer's name is a domain with a dot"},
		{"cluster-trust-bundle:example.org/a/b", "a signer's name is a domain with a dot"},
		{"cluster-trust-bundle:example.org/", `the signer's path is "": `},
		{"cluster-trust-bundle:example.org/../x", "a signer's name is a domain with a dot"},
		{"cluster-trust-bundle:example.org/ca?", `"" is no label: key=value, with & between several`},
		{"cluster-trust-bundle:example.org/ca?tier", `"tier" is no label`},
		{"cluster-trust-bundle:example.org/ca?-=x", `the label's key is "-": `},
		{"cluster-trust-bundle:example.org/ca?a=b c", `the label's value is "b c": `},
		{"cluster-trust-bundle:example.org/ca?a=1&a=2", "the label a can't have two values"},
		{"file:", `the file's name is "": `},
		{"file:/etc/passwd", "it is one of those that --trust-file gives, not a path"},
		{"file:..", "not a path"},
		{"file:other", "the files of this driver are corp, mesh"},
		{"file:" + strings.Repeat("x", 2000), "2005 bytes, at most 1024"},
		{strings.Join(strings.Split("abcdefghijklmnopq", ""), ","), "has 17 sources: at most 16"},
	}
	for _, row := range rows {
		_, err := trust(t, row.value)
		if err == nil || !strings.Contains(err.Error(), row.want) || !strings.HasPrefix(err.Error(), "csi.mayfly.dev/trust ") {
			t.Errorf("%q\n got: %v\nwant: %s", row.value, err, row.want)
		}
		if err != nil && (strings.ContainsAny(err.Error(), "\n\x00") || len(err.Error()) > 1000) {
			t.Errorf("the message is not fit for an event: %q", err)
		}
	}
	_, err := volume.Parse(asked(map[string]string{"issuer-name": "ca", "dns-names": "web", "trust": "file:corp"}), volume.Defaults{})
	if err == nil || !strings.Contains(err.Error(), "this driver has no files of CA certificates: its operator sets --trust-file") {
		t.Errorf("without files: %v", err)
	}
}

// The driver's default is for volumes that speak its own language, and for those of csi-driver-spiffe, whose --source-ca-bundle it stands for.
func TestADefaultTrust(t *testing.T) {
	defaults := withFiles
	defaults.Trust, defaults.TrustDomain, defaults.IssuerName = "file:corp", "example.org", "ca"
	for name, row := range map[string]struct {
		asked volume.Asked
		want  string
	}{
		"ours":                    {asked(map[string]string{"dns-names": "web"}), "file:corp"},
		"ours, that says":         {asked(map[string]string{"dns-names": "web", "trust": "issuer"}), "issuer"},
		"csi-driver's, that says": {asked(map[string]string{"old:issuer-name": "ca", "trust": "file:mesh"}), "file:mesh"},
		"of the SPIFFE driver":    {volume.Asked{Asked: spec.Asked{Driver: spec.SPIFFEDriver, Attributes: kubelet}, ID: "1", Target: "/t"}, "file:corp"},
		"of csi-driver's":         {asked(map[string]string{"old:issuer-name": "ca"}), "issuer"},
	} {
		v, err := volume.Parse(row.asked, defaults)
		if err != nil || len(v.Trust) != 1 || v.Trust[0].String() != row.want {
			t.Errorf("%s: %v (%v)", name, v.Trust, err)
		}
	}
}

func TestADefaultTrustThatIsNone(t *testing.T) {
	for value, want := range map[string]string{"": "", "issuer,file:corp": "", "file:other": "the files of this driver are corp, mesh", "vault": "known are issuer"} {
		defaults := withFiles
		defaults.Trust = value
		if err := defaults.Check(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", value, err)
		}
	}
}

// A driver that has lost a file still understands the volumes that have it.
func TestAVolumeThatWasUnderstoodBefore(t *testing.T) {
	a := asked(map[string]string{"issuer-name": "ca", "dns-names": "web", "trust": "file:gone"})
	if v, err := volume.Parse(a, volume.Defaults{AnyTrustFile: true}); err != nil || v.Trust[0].Name != "gone" {
		t.Errorf("%v (%v)", v.Trust, err)
	}
}
