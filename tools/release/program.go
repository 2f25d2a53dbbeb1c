package main

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
)

// A program is the binary of one platform.
type program struct {
	Name     string
	OS, Arch string
	Content  []byte
	Info     *debug.BuildInfo
}

// build makes the programs of all images for each platform, as `make build` does.
func (s source) build(ctx context.Context, platforms []string, dir string) ([]program, error) {
	var programs []program
	for _, platform := range platforms {
		system, arch, ok := strings.Cut(platform, "/")
		if !ok {
			return nil, fmt.Errorf("platform %s: an OS and an architecture are needed, such as linux/amd64", platform)
		}
		out := filepath.Join(dir, system+"-"+arch)
		if err := s.compile(ctx, system, arch, out); err != nil {
			return nil, err
		}
		for _, i := range contents() {
			p, err := s.read(filepath.Join(out, i.Name), system, arch)
			if err != nil {
				return nil, err
			}
			programs = append(programs, p)
		}
	}
	return programs, nil
}

// compile runs the go command. What the environment or a file of `go env -w` may say otherwise is set, each to
// something: what is empty would not count.
func (s source) compile(ctx context.Context, system, arch, out string) error {
	args := []string{"build", "-ldflags", "-s -w", "-o", out + "/"}
	for _, i := range contents() {
		args = append(args, "./cmd/"+i.Name)
	}
	cmd := exec.CommandContext(ctx, "go", args...) // #nosec G204 -- The platforms are the caller's.
	cmd.Dir = s.Dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-trimpath -buildvcs=true -mod=readonly", "CGO_ENABLED=0", "GOWORK=off",
		"GOOS="+system, "GOARCH="+arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFIPS140=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build for %s/%s: %w: %s", system, arch, err, out)
	}
	return nil
}

// read reads a program, and holds what the go command has stamped into it to the source.
func (s source) read(path, system, arch string) (program, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return program{}, err
	}
	content, err := os.ReadFile(path) // #nosec G304 -- It has just been built.
	if err != nil {
		return program{}, err
	}
	stamps := map[string]string{"version": info.Main.Version}
	for _, setting := range info.Settings {
		stamps[setting.Key] = setting.Value
	}
	for key, want := range map[string]string{
		"version": s.Version, "vcs.revision": s.Commit, "vcs.modified": "false", "GOEXPERIMENT": "", "-tags": "",
	} {
		if stamps[key] != want {
			return program{}, fmt.Errorf("%s for %s/%s has %s %q, and should have %q",
				filepath.Base(path), system, arch, key, stamps[key], want)
		}
	}
	return program{Name: filepath.Base(path), OS: system, Arch: arch, Content: content, Info: info}, nil
}
