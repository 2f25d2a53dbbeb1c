package local_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/local"
	"github.com/mayfly-csi/mayfly/signer/signertest"
)

func TestSigner(t *testing.T) {
	s, err := local.Open(filepath.Join(t.TempDir(), "ca"))
	if err != nil {
		t.Fatal(err)
	}
	signertest.Run(t, signertest.Backend{
		Signer: s,
		Pod: func(*testing.T) signer.Pod {
			return signer.Pod{Namespace: "default", Name: "web", UID: "1", ServiceAccount: "default"}
		},
	})
}

func TestTheCAIsMadeOnceAndKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "ca")
	read := func() []byte {
		if _, err := local.Open(dir); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, local.CertificateFile))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if first := read(); !bytes.Equal(first, read()) {
		t.Error("a second start made another CA")
	}
	info, err := os.Stat(filepath.Join(dir, local.KeyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", info.Mode(), err)
	}
	if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) != 1 {
		t.Errorf("left beside it: %v, %v", left, err)
	}
}

func TestABrokenCAIsRefused(t *testing.T) {
	rows := []struct {
		name, want string
		spoil      func(dir string) error
	}{
		{"no key", "but no", func(dir string) error { return os.Remove(filepath.Join(dir, local.KeyFile)) }},
		{"no certificate", "but no", func(dir string) error { return os.Remove(filepath.Join(dir, local.CertificateFile)) }},
		{"garbage", "read the certificates: there is no certificate in", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, local.CertificateFile), []byte("x"), 0o600)
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "ca")
			if _, err := local.Open(dir); err != nil {
				t.Fatal(err)
			}
			if err := row.spoil(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := local.Open(dir); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}
