package trust_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/driver/trust"
)

func TestParse(t *testing.T) {
	a, b := newCA(t, "a", nil), newCA(t, "b", nil)
	one, two := trust.Encode(list(a)), trust.Encode(list(b))
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})
	join := func(parts ...string) string { return strings.Join(parts, "") }
	rows := []struct {
		name, text string
		want       []*x509.Certificate
		problem    string
	}{
		{"one", string(one), list(a), ""},
		{"two, with text around them", join("# a\n", string(one), "\n# b\n", string(two), "the end"), list(a, b), ""},
		{"none twice", join(string(one), string(two), string(one)), list(a, b), ""},
		{"lines as Windows ends them", strings.ReplaceAll(string(one), "\n", "\r\n"), list(a), ""},
		{"empty", "", nil, "has no certificate"},
		{"garbage", "garbage", nil, "has no certificate"},
		{"a key", join(string(one), string(key)), nil, `has a PEM block of type "PRIVATE KEY" among its certificates`},
		{"no certificate inside", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})), nil, "has a block that is no certificate, number 1: x509: malformed certificate"},
		{"a block cut off", join(string(one), string(two[:len(two)/2])), nil, "has 2 PEM blocks of which 1 can't be read"},
		{"a block with a damaged middle", join(strings.Replace(string(one), "MII", "M!I", 1), string(two)), nil, "has 2 PEM blocks of which 1 can't be read"},
		{"too long", strings.Repeat("x", trust.MaxSize+1), nil, "is 1048577 bytes long: more than 1048576"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got, err := trust.Parse([]byte(row.text))
			equal(t, row.name, got, row.want)
			if (err == nil) != (row.problem == "") || err != nil && !strings.HasPrefix(err.Error(), row.problem) {
				t.Errorf("got %v, want %s", err, row.problem)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(trust.Encode(list(newCA(f, "a", nil))))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := trust.Parse(text)
		if err != nil {
			return
		}
		again, err := trust.Parse(trust.Encode(got))
		if err != nil || len(again) == 0 {
			t.Fatalf("not parsed again: %v", err)
		}
		equal(t, "again", again, got)
		if !bytes.Equal(trust.Encode(again), trust.Encode(got)) {
			t.Error("another text")
		}
	})
}
