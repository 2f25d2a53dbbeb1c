package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// writeLicences writes the licences and notices of all that is linked into the programs, which are to be handed on with
// them: those of the modules, and Go's own.
func (s source) writeLicences(ctx context.Context, dir, out string) (file, error) {
	run := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "go", args...) // #nosec G204 -- They are below.
		cmd.Dir = s.Dir
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
		printed, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
		}
		return strings.TrimSpace(string(printed)), nil
	}
	args := []string{"tool", "-modfile=tools/release/go.mod", "go-licenses", "save", "--save_path=" + dir}
	for _, c := range contents() {
		args = append(args, "./cmd/"+c.Name)
	}
	if _, err := run(args...); err != nil {
		return file{}, err
	}
	root, err := run("env", "GOROOT")
	if err != nil {
		return file{}, err
	}
	licence, err := os.ReadFile(filepath.Join(root, "LICENSE")) // #nosec G304 -- It is Go's.
	if err != nil {
		return file{}, err
	}
	err = os.WriteFile(filepath.Join(dir, "LICENSE-of-Go"), licence, 0o600) // #nosec G703 -- The caller's directory.
	if err != nil {
		return file{}, err
	}
	packed, err := s.tarball(dir)
	if err != nil {
		return file{}, err
	}
	return writeFile(out, fmt.Sprintf("mayfly-licences-%s.tar", s.number()), packed)
}
