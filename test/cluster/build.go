package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Kubernetes is the version of the control plane.
const Kubernetes = "v1.37.2"

// A binary is a command that the control plane consists of.
type binary struct {
	name, pkg, ldflags string
}

func binaries() []binary {
	const version = "-s -w -X k8s.io/component-base/version.gitVersion=" + Kubernetes +
		" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37"
	return []binary{
		{"etcd", "go.etcd.io/etcd/server/v3", "-s -w"},
		{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", version},
		{"certmanager", "./certmanager", "-s -w"},
	}
}

// Build sees to the binaries of the control plane, and returns their paths by their names. They lie below $MAYFLY_CACHE
// (~/.cache/mayfly), each in a directory whose name follows from what it is built of; what is there is not built again.
// It tells of its progress.
func Build(ctx context.Context, tell func(format string, args ...any)) (map[string]string, error) {
	paths := map[string]string{}
	for _, b := range binaries() {
		key, err := b.sources(ctx)
		if err != nil {
			return nil, fmt.Errorf("find what %s is built of: %w", b.name, err)
		}
		paths[b.name] = filepath.Join(cache(), b.name+"-"+key, b.name)
		if err := b.build(ctx, paths[b.name], tell); err != nil {
			return nil, fmt.Errorf("build %s: %w", b.name, err)
		}
	}
	return paths, nil
}

func cache() string {
	if dir := os.Getenv("MAYFLY_CACHE"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = os.TempDir()
	}
	return filepath.Join(home, ".cache", "mayfly")
}

// module is the directory of this module: where go.mod lies.
func module() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(file)
}

// sources is a digest of what decides on the binary: the versions of the modules that it is built of, and its source where it is ours.
func (b binary) sources(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}} {{.Version}}{{end}}", b.pkg)
	cmd.Dir = module()
	modules, err := cmd.Output()
	if err != nil {
		return "", err
	}
	lines := slices.Compact(slices.Sorted(strings.Lines(string(modules))))
	text := b.pkg + b.ldflags + runtime.Version() + strings.Join(lines, "")
	if strings.HasPrefix(b.pkg, "./") {
		main, err := os.ReadFile(filepath.Join(module(), b.pkg, "main.go"))
		if err != nil {
			return "", err
		}
		text += string(main)
	}
	sum := sha256.Sum256([]byte(text))
	return fmt.Sprintf("%x", sum[:6]), nil
}

// build builds aside and renames: an interrupted build leaves nothing that looks done.
func (b binary) build(ctx context.Context, path string, tell func(string, ...any)) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tell("building %s (kube-apiserver takes some 7 minutes where nothing is cached)", b.name)
	begin := time.Now()
	aside := fmt.Sprintf("%s.%d", path, os.Getpid())
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", b.ldflags, "-o", aside, b.pkg)
	cmd.Dir = module()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod -buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	tell("built %s in %s", b.name, time.Since(begin).Round(time.Second))
	return os.Rename(aside, path)
}
