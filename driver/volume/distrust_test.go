package volume_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/driver/volume"
)

// distrusted are the fingerprints of texts that stand for certificates.
func distrusted(texts ...string) (all volume.Fingerprints) {
	for _, text := range texts {
		all = append(all, sha256.Sum256([]byte(text)))
	}
	return all
}

func TestTheListOfDistrustedCertificates(t *testing.T) {
	a := fmt.Sprintf("%x", sha256.Sum256([]byte("a")))
	b := fmt.Sprintf("%X", sha256.Sum256([]byte("b")))
	var colons []string
	for pair := range slices.Chunk([]byte(b), 2) {
		colons = append(colons, string(pair))
	}
	for text, want := range map[string]volume.Fingerprints{
		"":                  {},
		"\n  \n# nothing\n": {},
		a:                   distrusted("a"),
		"# stolen\n" + a + "  # of the mesh\r\n\n\t" + strings.Join(colons, ":") + "\nSHA256 Fingerprint=" + b: distrusted("a", "b"),
	} {
		p, err := volume.ParseProfiles(map[string]string{volume.DistrustKey: text})
		if err != nil || p.Distrusted == nil || len(p.Distrusted) != len(want) {
			t.Fatalf("%q: %v (%v)", text, p, err)
		}
		for _, f := range want {
			if !p.Distrusted.Has(f) {
				t.Errorf("%q lacks %s", text, f)
			}
		}
		if p.Distrusted.Has(distrusted("c")[0]) {
			t.Errorf("%q has what it does not have", text)
		}
		record, err := json.Marshal(p.Distrusted)
		var again volume.Fingerprints
		if err != nil || json.Unmarshal(record, &again) != nil || !slices.Equal(again, p.Distrusted) {
			t.Errorf("recorded as %s (%v)", record, err)
		}
	}
	p, err := volume.ParseProfiles(nil)
	if err != nil || p.Distrusted == nil {
		t.Errorf("a ConfigMap without the key has no list: %v", err)
	}
}

func TestAListOfDistrustedCertificatesThatIsWrong(t *testing.T) {
	var many strings.Builder
	for i := range 65 {
		fmt.Fprintf(&many, "%x\n", sha256.Sum256([]byte{byte(i)}))
	}
	good := fmt.Sprintf("%x", sha256.Sum256(nil))
	for text, want := range map[string]string{
		"abcd":                             `distrust line 1 is "abcd", which is not a SHA-256 fingerprint of 64 hexadecimal digits`,
		good + "\n\n" + good[1:] + "g # x": `distrust line 3 is "` + good[1:] + `g", which is not a SHA-256 fingerprint`,
		good + " " + good:                  `distrust line 1 is "` + good[:63],
		"x\ny":                             `distrust line 1 is "x", which is not a SHA-256 fingerprint of 64 hexadecimal digits; distrust line 2 is "y"`,
		many.String():                      "distrust has 65 fingerprints: at most 64",
		strings.Repeat("#\n", 40_000):      "distrust has 80000 bytes: at most 65536",
	} {
		_, err := volume.ParseProfiles(map[string]string{volume.DistrustKey: text})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got  %.300v\nwant %s", err, want)
		}
	}
}
