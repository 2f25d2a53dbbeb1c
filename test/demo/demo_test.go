package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The demonstration itself, as `make run` starts it, but without a terminal and until the first rotation.
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
		end        os.Signal
	}{
		{"as root, until Ctrl-C", nil, syscall.SIGINT},
		{"as root, until the terminal is closed", nil, syscall.SIGHUP},
		{"as any user, in a user namespace", &syscall.Credential{Uid: 65534, Gid: 65534}, syscall.SIGTERM},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			cmd := exec.Command(demo, "--mayfly", plugin, "--pods=3", "--duration=4s")
			cmd.Dir = "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: row.credential}
			out := endAfter(t, cmd, "rotation 1", row.end)
			for _, want := range []string{"shop/cart-0", "shop/web-0", "bank/ledger-0", "rotation 0", "rotation 1", "no mount, file or process is left"} {
				if !strings.Contains(out, want) {
					t.Errorf("the output lacks %q:\n%s", want, out)
				}
			}
		})
	}
	if left, err := mounts(filepath.Join(os.TempDir(), "mayfly-")); err != nil || len(left) > 0 {
		t.Errorf("mounted: %v, %v", left, err)
	}
}

// endAfter runs a command until it has said something, ends it by a signal, and is all that it said.
func endAfter(t *testing.T, cmd *exec.Cmd, said string, signal os.Signal) string {
	t.Helper()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		all.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), said) && signal != nil {
			if err := cmd.Process.Signal(signal); err != nil {
				t.Error(err)
			}
			signal = nil
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, &all)
	}
	return all.String()
}

func build(t *testing.T, dir, output, pkg string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-race", "-o", output, pkg)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
}
