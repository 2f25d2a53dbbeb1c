package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/mayfly-csi/mayfly/test/cluster"
)

// atOnce is how many parallel tests run at a time, on however few cores: they wait more than they work.
const atOnce = 16

// shared is the control plane of this test binary.
var shared fixture

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "control-plane-")
	if err != nil {
		return 1, err
	}
	ctx := context.Background()
	if shared.binary, err = build(ctx, dir); err != nil {
		return 1, err
	}
	shared.Cluster = &cluster.Cluster{Dir: filepath.Join(dir, "cluster"), Tied: true}
	defer func() {
		err = errors.Join(err, shared.Stop())
		if code == 0 && err == nil {
			err = os.RemoveAll(dir)
		} else {
			fmt.Println("logs are in", dir)
		}
	}()
	if err := shared.Up(ctx, func(format string, args ...any) { fmt.Printf(format+"\n", args...) }); err != nil {
		return 1, err
	}
	for user, manifest := range map[string]string{pluginUser: "rbac.yaml", podPluginUser: "options/token-request/rbac.yaml"} {
		if err := pluginKubeconfig(ctx, filepath.Join(dir, user), manifest, user); err != nil {
			return 1, err
		}
	}
	shared.plugin, shared.podPlugin = filepath.Join(dir, pluginUser), filepath.Join(dir, podPluginUser)
	if err := flag.Set("test.parallel", fmt.Sprint(atOnce)); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// build builds the node plugin, with the race detector.
func build(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "mayfly")
	cmd := exec.CommandContext(ctx, "go", "build", "-race", "-o", path, "./cmd/mayfly")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the node plugin: %w: %s", err, out)
	}
	return path, nil
}

// The node plugin, for the API server: as it is, and where pods ask for themselves.
const (
	pluginUser    = "node-plugin"
	podPluginUser = "node-plugin-of-token-requests"
)

// pluginKubeconfig writes a kubeconfig for a user with the ClusterRole of a manifest, which gets the user's name where that is not the usual one.
func pluginKubeconfig(ctx context.Context, path, manifest, user string) error {
	role := &rbacv1.ClusterRole{}
	if err := document(filepath.Join("..", "..", "manifests", manifest), "ClusterRole", role); err != nil {
		return err
	}
	if user != pluginUser {
		role.Name = user
	}
	return userKubeconfig(ctx, path, role, user)
}

// userKubeconfig writes a kubeconfig for a user with a ClusterRole, which it makes.
func userKubeconfig(ctx context.Context, path string, role *rbacv1.ClusterRole, user string) error {
	if _, err := shared.Client.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return err
	}
	_, err := shared.Client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: user}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	text, err := shared.UserKubeconfig(user)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// document reads into object the first document of a kind in a manifest.
func document(path, kind string, object any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for _, one := range bytes.Split(text, []byte("\n---\n")) {
		var is metav1.TypeMeta
		if err := yaml.Unmarshal(one, &is); err != nil {
			return err
		}
		if is.Kind == kind {
			return yaml.Unmarshal(one, object)
		}
	}
	return fmt.Errorf("%s has no %s", path, kind)
}
