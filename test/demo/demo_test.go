package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The demonstration itself, as `make run` starts it, but for a few seconds and without a terminal.
func TestCertificatesRotateAndNothingIsLeft(t *testing.T) {
	dir, err := os.MkdirTemp("", "demo-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	demo, plugin := filepath.Join(dir, "demo"), filepath.Join(dir, "mayfly")
	build(t, ".", demo, ".")
	build(t, "../..", plugin, "./cmd/mayfly")
	rows := []struct {
		name       string
		credential *syscall.Credential
	}{
		{"as root", nil},
		{"as any user, in a user namespace", &syscall.Credential{Uid: 65534, Gid: 65534}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			cmd := exec.Command(demo, "--mayfly", plugin, "--pods=3", "--duration=4s", "--for=7s")
			cmd.Dir = "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: row.credential}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range []string{"shop/cart-0", "shop/web-0", "bank/ledger-0", "rotation 0", "rotation 1", "no mount, file or process is left"} {
				if !strings.Contains(string(out), want) {
					t.Errorf("the output lacks %q:\n%s", want, out)
				}
			}
		})
	}
	if left, err := mounts(filepath.Join(os.TempDir(), "mayfly-")); err != nil || len(left) > 0 {
		t.Errorf("mounted: %v, %v", left, err)
	}
}

func build(t *testing.T, dir, output, pkg string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-race", "-o", output, pkg)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
}
