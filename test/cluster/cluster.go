// Package cluster runs a real Kubernetes on this machine for tests, benchmarks and whoever wants to try: etcd, kube-apiserver,
// cert-manager's controllers, and, if nodes are asked for, the rest of the control plane, cert-manager's webhook, an ACME server,
// and on each node a kubelet and containerd. Everything lies in one directory and runs in network namespaces of its own; from this machine's
// own, only the API server can be reached, on a port of the loopback address.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	cmclient "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// A Cluster is described by its fields; Up and Open give it the rest.
type Cluster struct {
	Dir   string   // For all that it writes: data, logs, keys. An absolute path.
	Nodes []string // Names; none for a control plane alone.
	Port  int      // Of the API server, on 127.0.0.1; Up finds a free one if it is 0.
	Tied  bool     `json:"-"` // It ends with this process, however this one ends.

	Versions Versions // Of what it runs.

	REST         *rest.Config         `json:"-"` // The administrator's.
	Client       kubernetes.Interface `json:"-"`
	CertManager  cmclient.Interface   `json:"-"`
	ControlPlane *Machine             `json:"-"`

	nodes    map[string]*Machine
	pki      pki
	binaries map[string]string // Their paths.
	tell     func(format string, args ...any)
}

// startTimeout bounds the start and the end of any component on a busy machine.
const startTimeout = 2 * time.Minute

// Up builds what is needed, starts the cluster and waits until it works. tell hears of the progress. A cluster of that directory that is
// up stays, and gets Mayfly as it is now; one that is half up is started anew.
func (c *Cluster) Up(ctx context.Context, tell func(format string, args ...any)) (err error) {
	c.init()
	begin := time.Now()
	c.tell = tell
	defer func() {
		if err == nil {
			tell("up after %s", time.Since(begin).Round(time.Second))
		}
	}()
	if Running(ctx, c.Dir) {
		tell("the cluster is up already")
		open, err := Open(c.Dir)
		if err != nil {
			return err
		}
		if open.Versions != c.Versions {
			return fmt.Errorf("the cluster of %s has %s, and not %s: end it first", c.Dir, open.Versions, c.Versions)
		}
		*c = *open
		c.tell = tell
		if err := c.install(ctx); err != nil {
			return err
		}
		return c.restartMayfly(ctx)
	}
	if c.binaries, err = c.Versions.build(ctx, len(c.Nodes) > 0, tell); err != nil {
		return err
	}
	if err := Down(c.Dir); err != nil {
		return err
	}
	if err := c.claim(); err != nil {
		return err
	}
	if err := c.start(ctx); err != nil {
		return fmt.Errorf("%w (logs are in %s)", err, c.Logs())
	}
	return nil
}

// claim makes the cluster's directory. It runs what lies there as root, and removes it at the end: so it must be root's alone, and empty.
func (c *Cluster) claim() error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("make the cluster's directory: %w", err)
	}
	info, err := os.Lstat(c.Dir)
	if err != nil {
		return fmt.Errorf("look at the cluster's directory: %w", err)
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return fmt.Errorf("look at the cluster's directory: %w", err)
	}
	owner := info.Sys().(*syscall.Stat_t).Uid //nolint:errcheck,forcetypeassert // Linux.
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || owner != 0 || len(entries) > 0 {
		return fmt.Errorf("%s is not an empty directory that root alone can read: the cluster needs one of its own", c.Dir)
	}
	return nil
}

func (c *Cluster) start(ctx context.Context) error {
	door, err := c.listen()
	if err != nil {
		return fmt.Errorf("open the API server's port: %w", err)
	}
	defer door.Close() //nolint:errcheck // The machine has its own copy.
	if err := c.prepare(); err != nil {
		return fmt.Errorf("prepare the cluster: %w", err)
	}
	if err := c.startControlPlane(ctx, door); err != nil {
		return fmt.Errorf("start the control plane: %w", err)
	}
	if err := c.startNodes(ctx); err != nil {
		return err
	}
	if err := c.install(ctx); err != nil {
		return fmt.Errorf("install Mayfly: %w", err)
	}
	return os.WriteFile(c.started(), nil, 0o600)
}

// listen opens the port at which this machine reaches the API server.
func (c *Cluster) listen() (*os.File, error) {
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: c.Port})
	if err != nil {
		return nil, err
	}
	defer listener.Close()                       //nolint:errcheck // File is a copy.
	c.Port = listener.Addr().(*net.TCPAddr).Port //nolint:errcheck,forcetypeassert // It is one of TCP.
	return listener.File()
}

// url is where this machine reaches the API server.
func (c *Cluster) url() string { return fmt.Sprintf("https://127.0.0.1:%d", c.Port) }

// prepare makes the directory and what the machines start from.
func (c *Cluster) prepare() (err error) {
	if err := os.MkdirAll(c.Bin(), 0o700); err != nil {
		return err
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.description(), text, 0o600); err != nil {
		return err
	}
	for name, path := range c.binaries {
		if err := link(path, c.binary(name)); err != nil {
			return fmt.Errorf("link %s: %w", name, err)
		}
	}
	if c.pki, err = newPKI(filepath.Join(c.Dir, "pki")); err != nil {
		return err
	}
	return c.prepareControlPlane()
}

func (c *Cluster) description() string { return filepath.Join(c.Dir, "cluster.json") }

// Bin is the directory of the binaries, kubectl among them.
func (c *Cluster) Bin() string { return filepath.Join(c.Dir, "bin") }

func (c *Cluster) binary(name string) string { return filepath.Join(c.Bin(), name) }

// link puts a file at another path, too, in whichever way the file systems allow.
func link(from, to string) error {
	if err := os.Link(from, to); err == nil {
		return nil
	}
	return exec.Command("cp", from, to).Run()
}

// init makes the machines' descriptions.
func (c *Cluster) init() {
	c.ControlPlane = &Machine{Name: "control-plane", dir: c.Dir, tied: c.Tied}
	c.nodes = map[string]*Machine{}
	for _, name := range c.Nodes {
		c.nodes[name] = &Machine{Name: name, dir: c.Dir, tied: c.Tied}
	}
	c.pki = pki{filepath.Join(c.Dir, "pki")}
}

// Open is the cluster of a directory, which runs or not.
func Open(dir string) (*Cluster, error) {
	c := &Cluster{Dir: dir}
	text, err := os.ReadFile(c.description())
	if err != nil {
		return nil, fmt.Errorf("read the cluster's description: %w", err)
	}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("read the cluster's description: %w", err)
	}
	c.init()
	if _, err := os.Stat(c.Kubeconfig()); errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	return c, c.connect()
}

// Borrow is the cluster of a directory, with Mayfly as it is now, if that cluster runs; otherwise one with two nodes in a new directory. When the
// borrower is done, giveBack ends the latter and leaves the former.
func Borrow(ctx context.Context, dir string, tell func(format string, args ...any)) (c *Cluster, giveBack func() error, err error) {
	c = &Cluster{Dir: dir, Nodes: []string{"node-a", "node-b"}, Tied: true, Versions: VersionsOf()}
	if Running(ctx, dir) {
		return c, func() error { return nil }, c.Up(ctx, tell)
	}
	if c.Dir, err = os.MkdirTemp("/var/tmp", "mayfly-cluster-"); err != nil {
		return nil, nil, fmt.Errorf("make the cluster's directory: %w", err)
	}
	if err := c.Up(ctx, tell); err != nil {
		return nil, nil, errors.Join(err, c.Stop()) // The logs stay.
	}
	return c, c.Down, nil
}

// Running says whether the cluster of a directory was started wholly, runs and answers.
func Running(ctx context.Context, dir string) bool {
	c, err := Open(dir)
	if err != nil {
		return false
	}
	if _, err := os.Stat(c.started()); err != nil {
		return false
	}
	for _, machine := range c.machines() {
		if machine.pid() == 0 {
			return false
		}
	}
	return c.WaitAPI(ctx) == nil // It may be about to be back.
}

// started is a file that says that the cluster was started wholly.
func (c *Cluster) started() string { return filepath.Join(c.Dir, "started") }

// machines are the cluster's machines, the nodes first.
func (c *Cluster) machines() []*Machine {
	return append(slices.Collect(maps.Values(c.nodes)), c.ControlPlane)
}

func (c *Cluster) connect() (err error) {
	if c.REST, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig()); err != nil {
		return fmt.Errorf("read the kubeconfig: %w", err)
	}
	c.REST.QPS = -1
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

// Logs is the directory of the logs, one directory a machine.
func (c *Cluster) Logs() string { return filepath.Join(c.Dir, "logs") }

// Node is the machine of a node.
func (c *Cluster) Node(name string) *Machine { return c.nodes[name] }

// UserKubeconfig is a kubeconfig for a user who has no rights but those that are bound to the name.
func (c *Cluster) UserKubeconfig(name string) ([]byte, error) {
	return c.pki.user(c.url(), name)
}

// From is the API server of config for a process on a node: without the way by the port of this machine, whose socket proxy waits for acknowledgements
// (tcp(7), TCP_NODELAY, which it leaves unset) and so adds 40 ms to most requests.
func (c *Cluster) From(node string, config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.Host, config.Dial = apiURL(), c.nodes[node].Dial
	return config
}

// Kubectl runs kubectl as the administrator, and returns what it prints.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, c.binary("kubectl"), append([]string{"--kubeconfig", c.Kubeconfig()}, args...)...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("kubectl %v: %w: %s", args, err, out)
	}
	return string(out), nil
}

// Shell runs commands of bash in a directory as an administrator types them there: kubectl and helm are found, and reach
// the cluster. It returns what they print.
func (c *Cluster) Shell(ctx context.Context, dir, commands string) (string, error) {
	cmd := exec.CommandContext(ctx, "bash", "-c", "set -euo pipefail\n"+commands)
	cmd.Dir = dir
	// Later ones win. What the commands keep for themselves lies in HOME.
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig(), "HOME="+c.Dir, "PATH="+c.Bin()+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", strings.TrimSpace(commands), err, out)
	}
	return string(out), nil
}

// Down ends the cluster of a directory, if there is one.
func Down(dir string) error {
	c, err := Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.Down()
}

// Down ends everything that Up began, and removes the directory: nothing is left.
func (c *Cluster) Down() error {
	if err := c.Stop(); err != nil {
		return err
	}
	return os.RemoveAll(c.Dir)
}

// Stop ends everything that Up began; the directory stays, for whoever wants to read the logs. It is an error if anything else is left.
func (c *Cluster) Stop() error {
	traces, failed := c.traces()
	for _, machine := range c.machines() {
		failed = errors.Join(failed, machine.Kill())
	}
	if len(c.Nodes) > 0 {
		failed = errors.Join(failed, c.removeCgroup())
	}
	if failed = errors.Join(failed, traces.gone(context.Background())); failed != nil {
		return fmt.Errorf("end the cluster: %w", failed)
	}
	return nil
}

// eventually tries again until it succeeds, for at most startTimeout.
func eventually(ctx context.Context, what string, try func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, startTimeout, true, func(ctx context.Context) (bool, error) {
		last = try(ctx)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("wait for %s: %w: %w", what, err, last)
	}
	return nil
}
