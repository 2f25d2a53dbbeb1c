package volume_test

import (
	"reflect"
	"testing"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// TestEncode: what a record keeps of a volume is the volume, for each cell of the matrix and each example.
func TestEncode(t *testing.T) {
	volumes := 0
	for _, d := range []dialect{ours, old, mesh} {
		for _, r := range matrix() {
			for kind := range r.cells {
				if v, err := d.parse(r, kind); err == nil {
					volumes++
					comesBack(t, v)
				}
			}
		}
	}
	for _, uri := range []string{
		"https://me@example.org/a%2Fb?q#f", "https://example.org", "urn:a:b", "https://example.org?", "spiffe://example.org/a#",
	} {
		comesBack(t, parse(t, map[string]string{"issuer-name": "ca", "uri-sans": uri}))
	}
	for _, a := range volume.Attributes() {
		given := map[string]string{"issuer-name": "ca", "dns-names": "web", "layout": "pem,pkcs12", a.Name: a.Example}
		if v, err := volume.Parse(asked(given), volume.Defaults{Defaults: spec.Defaults{TrustDomain: "example.org", AsPod: true}, AnyTrustFile: true}); err == nil {
			volumes++
			comesBack(t, v)
		}
	}
	if volumes < 500 {
		t.Errorf("only %d volumes were tried", volumes)
	}
}

// comesBack demands that the volume is the same once it was written and read; of a URI, what a certificate has of it.
func comesBack(t *testing.T, v volume.Volume) {
	t.Helper()
	again, err := volume.Decode(volume.Encode(v))
	if joined(again.URIs) == joined(v.URIs) {
		again.URIs = v.URIs
	}
	if err != nil || !reflect.DeepEqual(again, v) {
		t.Errorf("%+v\nbecame %+v (%v)", v, again, err)
	}
}

func TestDecodeWhatIsNoVolume(t *testing.T) {
	for _, text := range []string{"", "null", "{}", `"x"`, `{"ID":7}`, `{"ID":"csi-1","IPs":["x"]}`} {
		if v, err := volume.Decode([]byte(text)); err == nil || !reflect.DeepEqual(v, volume.Volume{}) {
			t.Errorf("%q: %+v, %v", text, v, err)
		}
	}
}

// What a driver wrote before certificates had a package of their own, in its order, is the same volume.
func TestARecordOfBefore(t *testing.T) {
	const text = `{"ID":"csi-1","Target":"/t","Pod":{"Namespace":"shop","Name":"web-0","UID":"7d4f","ServiceAccount":"web","Node":""},` +
		`"Issuer":{"Name":"ca","Kind":"Issuer","Group":"cert-manager.io"},"DNSNames":["web"],"IPs":["10.0.0.1"],` +
		`"Annotations":{"example.org/team":"shop"},"Duration":3600000000000,"RenewPart":30,` +
		`"Usages":["digital signature","server auth","client auth"],"SignsUsages":true,` +
		`"Key":{"Algorithm":"ECDSA","Size":256,"Encoding":"PKCS8"},"ReuseKey":true,"Dialect":"mayfly",` +
		`"Files":{"ca.crt":"the CA certificates","tls.crt":"the certificate chain, leaf first","tls.key":"the private key"},` +
		`"Keystore":{"Password":"","Algorithms":"Modern2023"},` +
		`"Trust":[{"Kind":"issuer","Namespace":"","Name":"","Key":"","Signer":"","Labels":""}],"URIs":["spiffe://example.org/web"]}`
	want := parse(t, map[string]string{
		"issuer-name": "ca", "dns-names": "web", "ip-sans": "10.0.0.1", "uri-sans": "spiffe://example.org/web",
		"example.org/team": "shop", "renew-before": "30%", "reuse-private-key": "true",
	})
	if got, err := volume.Decode([]byte(text)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v (%v)\nwant %+v", got, err, want)
	}
}
