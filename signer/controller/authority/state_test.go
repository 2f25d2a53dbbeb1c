package authority

import (
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/signer/chain"
)

func TestAStateIsReadAsItWasWritten(t *testing.T) {
	first := take(t, Begin, State{}, start)
	prepared := take(t, Prepare, first, at(68))
	second := take(t, Promote, prepared, at(70))
	data := map[string][]byte{"note": []byte("kept")}
	for _, row := range []struct {
		name  string
		s     State
		roots int
		keys  int
	}{{"first", first, 1, 4}, {"prepared", prepared, 2, 6}, {"second", second, 2, 4}} {
		var err error
		if data, err = row.s.Write(data); err != nil {
			t.Fatal(err)
		}
		read, err := ParseState(data)
		if err != nil || len(read.Roots) != row.roots || len(data) != row.keys || string(data["note"]) != "kept" {
			t.Fatalf("%s: %d roots, %d keys (%v)", row.name, len(read.Roots), len(data), err)
		}
		if again, err := read.Write(data); err != nil || !reflect.DeepEqual(again, data) {
			t.Errorf("%s: it is not written as it was read (%v)", row.name, err)
		}
	}
}

func TestABrokenState(t *testing.T) {
	other := take(t, Begin, State{}, start)
	otherKey, err := other.Signing.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	whole, err := take(t, Prepare, take(t, Begin, State{}, start), at(68)).Write(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		key   string
		value []byte
		want  string
	}{
		{"tls.crt", nil, "tls.crt and tls.key: read the certificates: there is no certificate in 0 bytes"},
		{"tls.key", otherKey, "tls.crt and tls.key: read certificate and key: tls: private key does not match public key"},
		{"tls.crt", append(whole["tls.crt"], chain.Encode(other.Roots...)...), "tls.crt has several certificates"},
		{"ca.crt", nil, "ca.crt: there is no certificate"},
		{"ca.crt", chain.Encode(other.Roots...), "ca.crt does not have CN=Mayfly CA "},
		{"ca.crt", whole["tls.crt"], "ca.crt does not have CN=Mayfly CA "},
		{"next.key", nil, "next.crt and next.key: read certificate and key: tls: failed to find any PEM data in key input"},
		{"next.crt", nil, "next.crt and next.key: read the certificates: "},
	} {
		data := maps.Clone(whole)
		data[row.key] = row.value
		if _, err := ParseState(data); err == nil || !strings.HasPrefix(err.Error(), row.want) {
			t.Errorf("%s: %v, want %s", row.key, err, row.want)
		}
	}
}

func TestNames(t *testing.T) {
	n := Names{Namespace: "mayfly-system", Own: "mayfly-ca", Domain: "csi.mayfly.dev"}
	for secret, signer := range map[string]string{
		"mayfly-ca":              "csi.mayfly.dev/volume",
		"clusterissuer.ca":       "csi.mayfly.dev/clusterissuer.ca",
		"clusterissuer.ca.x":     "csi.mayfly.dev/clusterissuer.ca.x",
		"issuer.shop.ca":         "csi.mayfly.dev/issuer.shop.ca",
		"issuer.shop.ca.example": "csi.mayfly.dev/issuer.shop.ca.example",
	} {
		if got, ok := n.Signer(secret); got != signer || !ok {
			t.Errorf("%s: %s", secret, got)
		}
		if got, ok := n.Secret(signer); got != secret || !ok {
			t.Errorf("%s: %s", signer, got)
		}
	}
	for _, secret := range []string{"other", "volume", "issuer.shop", "issuer..ca", "issuer.shop.", "clusterissuer.", "clusterissuer", ""} {
		if got, ok := n.Signer(secret); ok {
			t.Errorf("%s: %s", secret, got)
		}
	}
	for _, signer := range []string{"csi.mayfly.dev/other", "csi.mayfly.dev/mayfly-ca", "csi.mayfly.dev/issuer.shop", "example.org/volume", "volume", "csi.mayfly.dev"} {
		if got, ok := n.Secret(signer); ok {
			t.Errorf("%s: %s", signer, got)
		}
	}
	n.Own = "issuer.shop.ca" // It is not an issuer's then.
	if got, ok := n.Secret("csi.mayfly.dev/issuer.shop.ca"); ok {
		t.Error(got)
	}
}
