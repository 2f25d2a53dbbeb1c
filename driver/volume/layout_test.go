package volume_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

func names(v volume.Volume) string {
	return strings.Join(slices.Sorted(maps.Keys(v.Files)), " ")
}

func TestLayouts(t *testing.T) {
	rows := []struct{ layout, want string }{
		{"pem", "ca.crt tls.crt tls.key"},
		{"bundle", "credential-bundle.pem"},
		{"combined", "combined.pem"},
		{"istio", "cert-chain.pem key.pem root-cert.pem"},
		{"gke", "ca_certificates.pem certificates.pem private_key.pem"},
		{"spiffe", "credential-bundle.private-key.x509.pem example.org.spiffe-trust-bundle.x509.pem"},
		{"pkcs12", "keystore.p12 truststore.p12"},
		{"jks", "keystore.jks truststore.jks"},
		{"bundle, spiffe,bundle", "credential-bundle.pem credential-bundle.private-key.x509.pem example.org.spiffe-trust-bundle.x509.pem"},
		{"pem,istio", "ca.crt cert-chain.pem key.pem root-cert.pem tls.crt tls.key"},
	}
	seen := map[string]bool{}
	for _, row := range rows {
		v := parse(t, map[string]string{"issuer-name": "ca", "uri-sans": "https://web,spiffe://example.org/web", "layout": row.layout})
		if got := names(v); got != row.want {
			t.Errorf("%s: %s, want %s", row.layout, got, row.want)
		}
		seen[row.layout] = true
	}
	for _, l := range volume.Layouts() {
		if !seen[l.Name] {
			t.Errorf("layout %s has no row", l.Name)
		}
	}
}

func TestTheOldKeystore(t *testing.T) {
	v := parse(t, map[string]string{"old:issuer-name": "ca", "old:pkcs12-enable": "true", "old:pkcs12-password": "x"})
	if got := names(v); got != "ca.crt keystore.p12 tls.crt tls.key" || v.Keystore.Password != "x" {
		t.Errorf("%s, password %q", got, v.Keystore.Password)
	}
}

func TestPasswords(t *testing.T) {
	a := asked(map[string]string{"issuer-name": "ca", "dns-names": "web", "layout": "jks"})
	rows := []struct{ attribute, secret, want string }{
		{"", "", ""}, {"", "from-the-secret", "from-the-secret"}, {"attribute", "from-the-secret", "attribute"},
	}
	for _, row := range rows {
		a.Attributes[spec.Prefix+"keystore-password"], a.Password = row.attribute, row.secret
		if v, err := volume.Parse(a, volume.Defaults{}); err != nil || v.Keystore.Password != row.want {
			t.Errorf("%+v: %q (%v)", row, v.Keystore.Password, err)
		}
	}
	a.Attributes[spec.Prefix+"keystore-password"], a.Password = "", "short"
	if _, err := volume.Parse(a, volume.Defaults{}); err == nil || !strings.Contains(err.Error(), "keystore-password of nodePublishSecretRef has 5 characters: a JKS needs at least 6") {
		t.Errorf("a short password of a Secret: %v", err)
	}
}

// A Secret's password is stored whether there are keystores or not, for a profile may bring them.
func TestALongPasswordWithoutKeystores(t *testing.T) {
	for _, prefix := range []string{"", "old:"} {
		a := asked(map[string]string{prefix + "issuer-name": "ca", "dns-names": "web"})
		a.Password = strings.Repeat("a", 1024)
		if _, err := volume.Parse(a, volume.Defaults{}); err != nil {
			t.Error(err)
		}
		a.Password += "a"
		_, err := volume.Parse(a, volume.Defaults{})
		if err == nil || err.Error() != "keystore-password of nodePublishSecretRef has 1025 bytes: at most 1024" {
			t.Error(err)
		}
	}
}

func TestPasswordsThatAStoreCannotHold(t *testing.T) {
	for _, row := range []struct{ layout, password, want string }{
		{"jks", "pässwörd", "has a character that a JKS can't hold: ASCII alone"},
		{"jks", "äää", "has a character that a JKS can't hold"},
		{"pkcs12", "a\U0001f511", "has a character that a keystore can't hold"},
		{"pkcs12", strings.Repeat("x", 2000), "has 2000 bytes: at most 1024"},
	} {
		_, err := volume.Parse(asked(map[string]string{"issuer-name": "ca", "dns-names": "web", "layout": row.layout, "keystore-password": row.password}), volume.Defaults{})
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s, %q: %v", row.layout, row.password, err)
		}
	}
	v := parse(t, map[string]string{"issuer-name": "ca", "dns-names": "web", "layout": "pkcs12", "keystore-password": " pässwörd "})
	if v.Keystore.Password != " pässwörd " {
		t.Errorf("%q", v.Keystore.Password)
	}
}

func TestASecretWithoutAPassword(t *testing.T) {
	a := asked(map[string]string{"issuer-name": "ca", "dns-names": "web", "layout": "pkcs12"})
	a.Secrets = true
	if _, err := volume.Parse(a, volume.Defaults{}); err == nil || !strings.Contains(err.Error(), "nodePublishSecretRef names a Secret without keystore-password") {
		t.Errorf("%v", err)
	}
	a.Attributes[spec.Prefix+"layout"] = "pem"
	if _, err := volume.Parse(a, volume.Defaults{}); err != nil {
		t.Errorf("without a store: %v", err)
	}
}

// Errors under other names name attributes that the author can use.
func TestErrorsUnderOtherNames(t *testing.T) {
	for _, row := range []struct {
		driver string
		key    string
		value  string
		want   string
	}{
		{spec.OldDriver, "old:dns-names", "web", "csi.cert-manager.io/issuer-name is required"},
		{spec.SPIFFEDriver, "spiffe.csi.cert-manager.io/fs-group", "0", `spiffe.csi.cert-manager.io/fs-group is "0"`},
		{spec.SPIFFEDriver, "spiffe.csi.cert-manager.io/fs-group", "1", "this driver has no issuer: its operator sets --issuer-name"},
	} {
		a := asked(map[string]string{row.key: row.value})
		a.Driver = row.driver
		_, err := volume.Parse(a, volume.Defaults{Defaults: spec.Defaults{TrustDomain: "example.org"}})
		if err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), spec.Prefix) {
			t.Errorf("%s: %v\nwant %s", row.driver, err, row.want)
		}
	}
}

// The old driver has no default issuer, and ours is not its.
func TestTheDefaultIssuerIsNotForTheOldDriver(t *testing.T) {
	a := asked(map[string]string{"old:dns-names": "web"})
	if _, err := volume.Parse(a, volume.Defaults{Defaults: spec.Defaults{IssuerName: "mesh"}}); err == nil || !strings.Contains(err.Error(), "issuer-name is required") {
		t.Errorf("%v", err)
	}
}

func TestSubjects(t *testing.T) {
	v := parse(t, map[string]string{
		"old:issuer-name": "ca", "old:common-name": "web", "old:organizations": `Shop, "Shop, Inc."`, "old:organizationalunits": "${POD_NAME}", "old:countries": "DE",
		"old:provinces": "Hessen", "old:localities": "Kassel", "old:streetaddresses": "Am Markt 1", "old:postalcodes": "34117", "old:serialnumber": "$7",
	})
	if got, want := v.Subject.String(), `SERIALNUMBER=$7,CN=web,OU=web-0,O=Shop+O=Shop\, Inc.,POSTALCODE=34117,STREET=Am Markt 1,L=Kassel,ST=Hessen,C=DE`; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestAnnotations(t *testing.T) {
	v := parse(t, map[string]string{"old:issuer-name": "ca", "example.org/team": "shop", "cert-manager.io/private-key-secret-name": "k", "acme.cert-manager.io/http01-edit-in-place": "true"})
	if !maps.Equal(v.Annotations, map[string]string{"example.org/team": "shop", "cert-manager.io/private-key-secret-name": "k", "acme.cert-manager.io/http01-edit-in-place": "true"}) {
		t.Errorf("%v", v.Annotations)
	}
}

func TestSPIFFEIDs(t *testing.T) {
	a := asked(map[string]string{"issuer-name": "ca", "spiffe": "true"})
	for path, want := range map[string]string{
		"": "spiffe://example.org/ns/shop/sa/web", "/pods/${POD_UID}": "spiffe://example.org/pods/7d4f",
	} {
		v, err := volume.Parse(a, volume.Defaults{Defaults: spec.Defaults{TrustDomain: "example.org", SPIFFEPath: path}})
		if err != nil || len(v.URIs) != 1 || v.URIs[0].String() != want {
			t.Errorf("%q: %v (%v)", path, v.URIs, err)
		}
	}
	if _, err := volume.Parse(a, volume.Defaults{}); err == nil || !strings.Contains(err.Error(), "this driver has no trust domain") {
		t.Errorf("without a trust domain: %v", err)
	}
}
