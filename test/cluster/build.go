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

// A binary is a command that the cluster consists of.
type binary struct {
	name, pkg, ldflags string
	module             string // Below that of the binaries, where it can't be of that one.
	modfile            string // In place of its module's go.mod.
	tags               string // For code in C, which is not built otherwise.
}

// binaries are what a control plane consists of, and what nodes need besides.
func (v Versions) binaries(nodes bool) ([]binary, error) {
	kubernetes, err1 := v.kubernetes()
	modfile, err2 := v.certManager()
	containerd, err3 := v.containerd()
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	all := []binary{
		{name: "etcd", pkg: "go.etcd.io/etcd/server/v3", ldflags: "-s -w"},
		kubernetes.command("kube-apiserver"),
		usual().command("kubectl"), // Whoever runs it has one.
		{name: "certmanager", pkg: "./certmanager", ldflags: "-s -w", modfile: modfile},
	}
	if !nodes {
		return all, nil
	}
	return append(append(all, containerd...),
		kubernetes.command("kube-controller-manager"),
		kubernetes.command("kube-scheduler"),
		kubernetes.command("kubelet"),
		binary{name: "pebble", pkg: "github.com/letsencrypt/pebble/v2/cmd/pebble", ldflags: "-s -w"},
		binary{name: "helm", pkg: "helm.sh/helm/v4/cmd/helm", ldflags: "-s -w", module: "helm"},
	), nil
}

// Build builds every binary of a cluster with nodes, approver-policy and trust-manager, where that is not done yet. It tells of its progress.
func Build(ctx context.Context, tell func(format string, args ...any)) error {
	if _, err := VersionsOf().build(ctx, true, tell); err != nil {
		return err
	}
	_, _, err1 := ApproverPolicy(ctx, tell)
	_, _, err2 := TrustManager(ctx, tell)
	return errors.Join(err1, err2)
}

// build sees to the binaries, and returns their paths by their names. They lie below $MAYFLY_CACHE
// (~/.cache/mayfly), each in a directory whose name follows from what it is built of; what is there is not built again.
// It tells of its progress.
func (v Versions) build(ctx context.Context, nodes bool, tell func(format string, args ...any)) (map[string]string, error) {
	all, err := v.binaries(nodes)
	if err != nil {
		return nil, err
	}
	paths := map[string]string{}
	for _, b := range all {
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
	return b.defined(ctx, of, "policy.cert-manager.io_certificaterequestpolicies.yaml", tell)
}

// TrustManager does the same for cert-manager's trust-manager.
func TrustManager(ctx context.Context, tell func(format string, args ...any)) (path, definition string, err error) {
	const of = "github.com/cert-manager/trust-manager"
	b := binary{name: "trust-manager", pkg: of + "/cmd/trust-manager", ldflags: "-s -w", module: "trustmanager"}
	return b.defined(ctx, of, "trust.cert-manager.io_bundles.yaml", tell)
}

// defined sees to a binary of a module that has the definitions of its resources in deploy/crds, and returns both paths.
func (b binary) defined(ctx context.Context, module, file string, tell func(string, ...any)) (path, definition string, err error) {
	if path, err = b.get(ctx, tell); err != nil {
		return "", "", err
	}
	dir, err := b.find(ctx, module)
	return path, filepath.Join(dir, "deploy", "crds", file), err
}

// find is the directory of a module of which the binary is built.
func (b binary) find(ctx context.Context, module string) (string, error) {
	dir, err := b.tool(ctx, "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("find module %s: %w", module, err)
	}
	return strings.TrimSpace(string(dir)), nil
}

// tool is a command of Go's in the binary's module.
func (b binary) tool(ctx context.Context, command string, args ...string) *exec.Cmd {
	argv := []string{command}
	if b.modfile != "" {
		argv = append(argv, "-modfile", b.modfile)
	}
	cmd := exec.CommandContext(ctx, "go", append(argv, args...)...)
	cmd.Dir = b.dir()
	return cmd
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
	modules, err := b.tool(ctx, "list", "-deps", "-f", "{{with .Module}}{{.Path}} {{.Version}}{{end}}", b.pkg).Output()
	if err != nil {
		return "", err
	}
	lines := slices.Compact(slices.Sorted(strings.Lines(string(modules))))
	text := b.pkg + b.ldflags + b.tags + runtime.Version() + strings.Join(lines, "")
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
	cmd := b.tool(ctx, "build", "-tags", b.tags, "-ldflags", b.ldflags, "-o", aside, b.pkg)
	cgo := map[bool]string{true: "1", false: "0"}[b.tags != ""]
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo, "GOFLAGS=-mod=mod -buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	tell("built %s in %s", b.name, time.Since(begin).Round(time.Second))
	return os.Rename(aside, path)
}
