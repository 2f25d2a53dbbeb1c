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

// A binary is a command that the cluster consists of.
type binary struct {
	name, pkg, ldflags string
	module             string // Below that of the binaries, where it can't be of that one.
}

// binaries are what a control plane consists of, and what nodes need besides.
func binaries(nodes bool) []binary {
	const version = "-s -w -X k8s.io/component-base/version.gitVersion=" + Kubernetes +
		" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37"
	all := []binary{
		{name: "etcd", pkg: "go.etcd.io/etcd/server/v3", ldflags: "-s -w"},
		{name: "kube-apiserver", pkg: "k8s.io/kubernetes/cmd/kube-apiserver", ldflags: version},
		{name: "kubectl", pkg: "k8s.io/kubernetes/cmd/kubectl", ldflags: version},
		{name: "certmanager", pkg: "./certmanager", ldflags: "-s -w"},
	}
	if !nodes {
		return all
	}
	return append(all,
		binary{name: "kube-controller-manager", pkg: "k8s.io/kubernetes/cmd/kube-controller-manager", ldflags: version},
		binary{name: "kube-scheduler", pkg: "k8s.io/kubernetes/cmd/kube-scheduler", ldflags: version},
		binary{name: "kubelet", pkg: "k8s.io/kubernetes/cmd/kubelet", ldflags: version},
		binary{name: "pebble", pkg: "github.com/letsencrypt/pebble/v2/cmd/pebble", ldflags: "-s -w"},
		binary{name: "helm", pkg: "helm.sh/helm/v4/cmd/helm", ldflags: "-s -w", module: "helm"},
	)
}

// Build builds every binary of a cluster with nodes, and approver-policy, where that is not done yet. It tells of its progress.
func Build(ctx context.Context, tell func(format string, args ...any)) error {
	if _, err := build(ctx, true, tell); err != nil {
		return err
	}
	_, _, err := ApproverPolicy(ctx, tell)
	return err
}

// build sees to the binaries, and returns their paths by their names. They lie below $MAYFLY_CACHE
// (~/.cache/mayfly), each in a directory whose name follows from what it is built of; what is there is not built again.
// It tells of its progress.
func build(ctx context.Context, nodes bool, tell func(format string, args ...any)) (map[string]string, error) {
	paths := map[string]string{}
	for _, b := range binaries(nodes) {
		var err error
		if paths[b.name], err = b.get(ctx, tell); err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// ApproverPolicy sees to the binary of cert-manager's approver-policy, which no cluster runs by itself, and returns its path and that of its resource's definition.
func ApproverPolicy(ctx context.Context, tell func(format string, args ...any)) (path, definition string, err error) {
	const of = "github.com/cert-manager/approver-policy"
	b := binary{name: "approver-policy", pkg: of + "/cmd", ldflags: "-s -w", module: "approverpolicy"}
	if path, err = b.get(ctx, tell); err != nil {
		return "", "", err
	}
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", of)
	cmd.Dir = b.dir()
	dir, err := cmd.Output()
	if err != nil {
		return "", "", fmt.Errorf("find approver-policy: %w", err)
	}
	return path, filepath.Join(strings.TrimSpace(string(dir)), "deploy", "crds", "policy.cert-manager.io_certificaterequestpolicies.yaml"), nil
}

// get sees to the binary, and returns its path.
func (b binary) get(ctx context.Context, tell func(format string, args ...any)) (string, error) {
	key, err := b.sources(ctx)
	if err != nil {
		return "", fmt.Errorf("find what %s is built of: %w", b.name, err)
	}
	path := filepath.Join(cache(), b.name+"-"+key, b.name)
	if err := b.build(ctx, path, tell); err != nil {
		return "", fmt.Errorf("build %s: %w", b.name, err)
	}
	return path, nil
}

// dir is the directory of the binary's module.
func (b binary) dir() string { return filepath.Join(module(), b.module) }

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

// module is the directory of the module of the binaries.
func module() string { return filepath.Join(repository(), "test", "cluster", "binaries") }

// repository is the directory of this repository.
func repository() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// sources is a digest of what decides on the binary: the versions of the modules that it is built of, and its source where it is ours.
func (b binary) sources(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}} {{.Version}}{{end}}", b.pkg)
	cmd.Dir = b.dir()
	modules, err := cmd.Output()
	if err != nil {
		return "", err
	}
	lines := slices.Compact(slices.Sorted(strings.Lines(string(modules))))
	text := b.pkg + b.ldflags + runtime.Version() + strings.Join(lines, "")
	if strings.HasPrefix(b.pkg, "./") {
		ours, err := source(filepath.Join(module(), b.pkg))
		if err != nil {
			return "", err
		}
		text += ours
	}
	sum := sha256.Sum256([]byte(text))
	return fmt.Sprintf("%x", sum[:6]), nil
}

// source is the text of a package of ours.
func source(dir string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		all.Write(text)
	}
	return all.String(), nil
}

// build builds aside and renames: an interrupted build leaves nothing that looks done.
func (b binary) build(ctx context.Context, path string, tell func(string, ...any)) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tell("building %s (all of Kubernetes takes some 8 minutes where nothing is cached, and approver-policy 2)", b.name)
	begin := time.Now()
	aside := fmt.Sprintf("%s.%d", path, os.Getpid())
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", b.ldflags, "-o", aside, b.pkg)
	cmd.Dir = b.dir()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod -buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	tell("built %s in %s", b.name, time.Since(begin).Round(time.Second))
	return os.Rename(aside, path)
}
