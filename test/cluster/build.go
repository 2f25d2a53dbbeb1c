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

// Build sees to the binaries of the control plane, and returns the directory that has them: one below $MAYFLY_CACHE
// (~/.cache/mayfly) whose name follows from what they are built of. What is there is not built again. It tells of its progress.
func Build(ctx context.Context, tell func(format string, args ...any)) (string, error) {
	key, err := sources()
	if err != nil {
		return "", fmt.Errorf("find what to build: %w", err)
	}
	dir := filepath.Join(cache(), "control-plane-"+key)
	for _, b := range binaries() {
		if err := b.build(ctx, dir, tell); err != nil {
			return "", fmt.Errorf("build %s: %w", b.name, err)
		}
	}
	return dir, nil
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

// sources is a digest of what decides on the binaries.
func sources() (string, error) {
	digest := sha256.New()
	for _, name := range []string{"go.mod", "go.sum", "build.go", "certmanager/main.go"} {
		text, err := os.ReadFile(filepath.Join(module(), name))
		if err != nil {
			return "", err
		}
		digest.Write(text)
	}
	return fmt.Sprintf("%x", digest.Sum(nil)[:6]), nil
}

// build builds aside and renames: an interrupted build leaves nothing that looks done.
func (b binary) build(ctx context.Context, dir string, tell func(string, ...any)) error {
	path := filepath.Join(dir, b.name)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
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
