// Package cluster runs a real control plane for tests and benchmarks: etcd, kube-apiserver and the controllers of cert-manager
// that sign CertificateRequests, all on loopback and all in one directory.
package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	cmclient "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned"
	"github.com/go-logr/logr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// A Cluster is a running control plane. Stop it after use.
type Cluster struct {
	Dir         string // Logs and data.
	REST        *rest.Config
	Client      kubernetes.Interface
	CertManager cmclient.Interface

	environment *envtest.Environment
	binaries    map[string]string // Their paths.
	kubeconfig  []byte
	controllers *process
}

// startTimeout bounds the start of any component on a busy machine.
const startTimeout = 2 * time.Minute

// Start builds what is needed, starts a control plane in dir and waits until it works. tell hears of the progress.
func Start(ctx context.Context, dir string, tell func(format string, args ...any)) (*Cluster, error) {
	binaries, err := Build(ctx, tell)
	if err != nil {
		return nil, err
	}
	crds, err := certManagerCRDs(ctx)
	if err != nil {
		return nil, err
	}
	log.SetLogger(logr.Discard())
	c := &Cluster{Dir: dir, binaries: binaries}
	if err := c.startAPI(crds); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	if err := c.StartControllers(ctx, true); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// startAPI starts etcd and the API server, with cert-manager's resources.
func (c *Cluster) startAPI(crds string) (err error) {
	api := &envtest.APIServer{Path: c.binaries["kube-apiserver"], CertDir: filepath.Join(c.Dir, "apiserver")}
	api.Configure().Set("authorization-mode", "Node,RBAC").
		Append("enable-admission-plugins", "NodeRestriction").
		Set("disable-admission-plugins", "ServiceAccount"). // No controller makes the namespaces' default accounts here.
		Set("endpoint-reconciler-type", "none").
		Set("request-timeout", "10s") // A stop waits as long for open connections.
	etcd := &envtest.Etcd{Path: c.binaries["etcd"], DataDir: filepath.Join(c.Dir, "etcd")}
	for _, dir := range []string{api.CertDir, etcd.DataDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the control plane's directory: %w", err)
		}
	}
	if api.Out, err = os.Create(filepath.Join(c.Dir, "kube-apiserver.log")); err != nil {
		return fmt.Errorf("make the log: %w", err)
	}
	api.Err = api.Out
	c.environment = &envtest.Environment{
		ControlPlane:      envtest.ControlPlane{APIServer: api, Etcd: etcd},
		CRDDirectoryPaths: []string{crds},

		ControlPlaneStartTimeout: startTimeout,
		ControlPlaneStopTimeout:  startTimeout,
	}
	if c.REST, err = c.environment.Start(); err != nil {
		return fmt.Errorf("start the API server (log in %s): %w", c.Dir, err)
	}
	c.REST.QPS = -1
	return c.connect()
}

func (c *Cluster) connect() (err error) {
	admin, err := c.environment.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		return fmt.Errorf("make the administrator: %w", err)
	}
	if c.kubeconfig, err = admin.KubeConfig(); err != nil {
		return fmt.Errorf("make the kubeconfig: %w", err)
	}
	if err := os.WriteFile(c.Kubeconfig(), c.kubeconfig, 0o600); err != nil {
		return fmt.Errorf("make the kubeconfig: %w", err)
	}
	if c.Client, err = kubernetes.NewForConfig(c.REST); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	if c.CertManager, err = cmclient.NewForConfig(c.REST); err != nil {
		return fmt.Errorf("make a client of cert-manager: %w", err)
	}
	return nil
}

// Kubeconfig is the path of the administrator's kubeconfig.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.Dir, "kubeconfig") }

// StartControllers starts cert-manager's controllers; approve says whether they approve every request.
func (c *Cluster) StartControllers(ctx context.Context, approve bool) (err error) {
	c.controllers, err = startProcess(ctx, filepath.Join(c.Dir, "certmanager.log"), c.binaries["certmanager"],
		"--kubeconfig", c.Kubeconfig(), fmt.Sprintf("--approve=%v", approve))
	return err
}

// StopControllers ends cert-manager's controllers.
func (c *Cluster) StopControllers() error {
	if c.controllers == nil {
		return nil
	}
	err := c.controllers.stop()
	c.controllers = nil
	return err
}

// StopAPI ends the API server; etcd and its data stay.
func (c *Cluster) StopAPI() error { return c.environment.ControlPlane.APIServer.Stop() }

// StartAPI starts the API server again, where it was.
func (c *Cluster) StartAPI() error { return c.environment.ControlPlane.APIServer.Start() }

// Stop ends everything that Start began.
func (c *Cluster) Stop() error {
	err := c.StopControllers()
	if c.environment != nil {
		err = errors.Join(err, c.environment.Stop())
	}
	return err
}

// certManagerCRDs is the directory of cert-manager's resource definitions, in its module.
func certManagerCRDs(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/cert-manager/cert-manager")
	cmd.Dir = module()
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find cert-manager's module: %w", err)
	}
	return filepath.Join(string(out[:len(out)-1]), "deploy", "crds"), nil
}

// UserKubeconfig is a kubeconfig for a user who has no rights but those that are bound to the name.
func (c *Cluster) UserKubeconfig(name string) ([]byte, error) {
	user, err := c.environment.AddUser(envtest.User{Name: name}, nil)
	if err != nil {
		return nil, fmt.Errorf("make user %s: %w", name, err)
	}
	return user.KubeConfig()
}

// Documents splits a YAML file into its documents.
func Documents(text []byte) [][]byte { return bytes.Split(text, []byte("\n---\n")) }
