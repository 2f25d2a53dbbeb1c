package volume_test

import (
	"reflect"
	"testing"

	"github.com/mayfly-csi/mayfly/driver/volume"
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
		if v, err := volume.Parse(asked(given), volume.Defaults{TrustDomain: "example.org", AnyTrustFile: true, AsPod: true}); err == nil {
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
