package cluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmclient "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer/ca"
	"github.com/mayfly-csi/mayfly/signer/chain"
	"github.com/mayfly-csi/mayfly/signer/controller/audit"
	"github.com/mayfly-csi/mayfly/test/forge"
)

// signs applies what the controller needs to decide, and to sign PodCertificateRequests, with a CA for native volumes.
func signs(t *testing.T) {
	t.Helper()
	manifests := filepath.Join("..", "..", "manifests")
	_, err := shared.Kubectl(t.Context(), "apply", "-f", filepath.Join(manifests, "00-namespace.yaml"),
		"-f", filepath.Join(manifests, "controller"), "-f", filepath.Join(manifests, "authority"),
		"-f", modeFile("authority.yaml"), "-f", modeFile("controller.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	const name = "mayfly-under-attack"
	_, err = shared.Client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "mayfly", Namespace: "mayfly-system"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	role := &rbacv1.ClusterRole{}
	if err := document(filepath.Join(manifests, "rbac.yaml"), "ClusterRole", role); err != nil {
		t.Fatal(err)
	}
	role.Name = name
	if _, err := shared.Client.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	own, err := ca.New("corp", time.Now(), time.Now().Add(48*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	key, err := own.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	_, err = shared.Client.CoreV1().Secrets(caNamespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: corpSecret}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: chain.Encode(own.Certificate), corev1.TLSPrivateKeyKey: key},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		_, err := shared.Kubectl(ctx, "delete", "-f", modeFile("controller.yaml"))
		for _, err := range []error{
			err,
			shared.Client.RbacV1().ClusterRoles().Delete(ctx, name, metav1.DeleteOptions{}),
			shared.Client.RbacV1().ClusterRoleBindings().Delete(ctx, name, metav1.DeleteOptions{}),
			shared.Client.CoreV1().Secrets(caNamespace).Delete(ctx, corpSecret, metav1.DeleteOptions{}),
			shared.Client.CertificatesV1().ClusterTrustBundles().Delete(ctx, bundleOf(corpSigner), metav1.DeleteOptions{}),
		} {
			if err != nil && !apierrors.IsNotFound(err) {
				t.Error(err)
			}
		}
		forgetCAs(t)
	})
}

// plainController builds the binary as make build does: one with the race detector takes several times the memory.
func plainController(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "mayfly-controller")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "./cmd/mayfly-controller")
	cmd.Dir, cmd.Env = filepath.Join("..", ".."), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the controller: %v: %s", err, out)
	}
	return path
}

// A siege is a controller that is attacked, and an honest pod meanwhile.
type siege struct {
	*stage
	binary     string
	honest     *corev1.Pod
	namespaces []string // With requests.
	asked      int      // By the honest pod.
	usual      time.Duration

	ledger          *ledger
	metrics, health string
	group           cgroups.Manager
}

// A ledger counts what is decided as the controller's audit record says it.
type ledger struct {
	mu      sync.Mutex
	honest  map[string]int // Requests, with how many of others of their kind were decided before.
	others  map[string]int // By their kind.
	byNode  map[string]int
	limited []audit.Record
}

// read keeps the ledger until the record ends.
func (l *ledger) read(record io.Reader) error {
	for lines := bufio.NewScanner(record); lines.Scan(); {
		var r audit.Record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("%s: %w", lines.Bytes(), err)
		}
		l.mu.Lock()
		switch {
		case r.Audit == audit.Limit:
			l.limited = append(l.limited, r)
		case r.Audit == audit.Decision && strings.HasPrefix(r.Request.Name, honestName):
			l.honest[r.Request.Name] = l.others[r.Request.Kind]
		case r.Audit == audit.Decision:
			l.others[r.Request.Kind]++
			l.byNode[r.Node]++
		}
		l.mu.Unlock()
	}
	return nil
}

// begin starts the controller with the memory limit and the environment of its manifest, and waits until it is ready.
func (s *siege) begin(args ...string) (end func()) {
	s.Helper()
	limit, env := ofManifest(s.T)
	var err error
	s.group, err = manager.New(&cgroups.Cgroup{Path: "/mayfly-" + s.namespace, Resources: &cgroups.Resources{Memory: limit}})
	if err != nil {
		s.Fatal(err)
	}
	kubeconfig, err := shared.UserKubeconfig(controllerAccount)
	if err != nil {
		s.Fatal(err)
	}
	s.metrics, s.health = freeAddress(s.T), freeAddress(s.T)
	for _, err := range []error{s.group.Apply(-1), s.group.Set(&cgroups.Resources{Memory: limit})} {
		if err != nil {
			s.Fatal(err)
		}
	}
	// The shell enters the group, so that all of the process's memory is the group's.
	process := exec.Command("/bin/sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(s.group.Path("memory"), "cgroup.procs"),
		s.binary, "run", "--kubeconfig", write(s.T, kubeconfig), "--pod-certificates",
		"--metrics-address="+s.metrics, "--health-address="+s.health)
	process.Args = append(process.Args, args...)
	log := newText(s.T)
	process.Stderr, process.Env = log.File, append(os.Environ(), env...)
	record, err := process.StdoutPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := process.Start(); err != nil {
		s.Fatal(err)
	}
	s.ledger = &ledger{honest: map[string]int{}, others: map[string]int{}, byNode: map[string]int{}}
	var background errgroup.Group
	background.Go(func() error { return s.ledger.read(record) })
	s.Cleanup(func() {
		_ = process.Process.Kill() // Where the test has failed.
		if s.Failed() {
			s.Log(log)
		}
	})
	until(s.T, "the controller is ready", func() bool { return s.get(s.health, "/readyz") == nil })
	ctx, stop := context.WithCancel(s.Context())
	background.Go(func() error { return s.probe(ctx) })
	return func() {
		stats, err := s.group.GetStats()
		if err != nil {
			s.Error(err)
		} else {
			s.Logf("memory: at most %d MiB, the limit is %d MiB", stats.MemoryStats.Usage.MaxUsage>>20, limit>>20)
		}
		stop()
		_ = process.Process.Signal(syscall.SIGTERM)
		if err := background.Wait(); err != nil {
			s.Error(err)
		}
		if err := process.Wait(); err != nil {
			s.Errorf("the controller ended with %v", err)
		}
		if err := s.group.Destroy(); err != nil {
			s.Error(err)
		}
	}
}

// ofManifest returns the memory limit of the controller's manifest, and its environment but for addresses and the node.
func ofManifest(t *testing.T) (limit int64, env []string) {
	t.Helper()
	deployment := &appsv1.Deployment{}
	if err := document(filepath.Join("..", "..", "manifests", "controller", "workload.yaml"), "Deployment", deployment); err != nil {
		t.Fatal(err)
	}
	container := deployment.Spec.Template.Spec.Containers[0]
	if limit = container.Resources.Limits.Memory().Value(); limit == 0 {
		t.Fatal("the manifest sets no memory limit")
	}
	for _, v := range container.Env {
		if v.Value != "" && !strings.HasSuffix(v.Name, "_ADDRESS") {
			env = append(env, v.Name+"="+v.Value)
		}
	}
	return limit, env
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // It is only for the address.
	return listener.Addr().String()
}

// get reads a page of the controller's.
func (s *siege) get(address, path string) error {
	_, err := s.page(address, path)
	return err
}

func (s *siege) page(address, path string) (string, error) {
	response, err := (&http.Client{Timeout: 10 * time.Second}).Get("http://" + address + path)
	if err != nil {
		return "", err
	}
	defer response.Body.Close() //nolint:errcheck // It is read.
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return string(body), err
}

// probe asks /healthz until ctx ends. It must always answer.
func (s *siege) probe(ctx context.Context) error {
	for ticks := time.NewTicker(500 * time.Millisecond); ; {
		if err := s.get(s.health, "/healthz"); err != nil {
			return fmt.Errorf("probe the controller: %w", err)
		}
		select {
		case <-ctx.Done():
			ticks.Stop()
			return nil
		case <-ticks.C:
		}
	}
}

// attack runs an attack, and has the honest pod ask once a second meanwhile.
func (s *siege) attack(name string, attack func(context.Context) error) {
	s.Helper()
	took := s.during(name, func(ask func()) {
		done := make(chan error, 1)
		go func() {
			defer close(done)
			done <- attack(s.Context())
		}()
		for ticks := time.NewTicker(time.Second); ; {
			ask()
			select {
			case err := <-done:
				ticks.Stop()
				if err != nil || s.Failed() {
					s.Fatalf("%s: %v", name, err)
				}
				return
			case <-ticks.C:
			}
		}
	})
	s.Logf("%s: an honest pod's decision takes %.1f times as long", name, took.Seconds()/s.usual.Seconds())
}

// during returns how long an honest request takes, in the middle, of those that asking asks. None may be overtaken by
// many.
func (s *siege) during(name string, asking func(ask func())) time.Duration {
	s.Helper()
	var took []time.Duration
	most := 0
	asking(func() {
		d, n := s.ask()
		took = append(took, d)
		most = max(most, n)
		if n > overtaken {
			s.Errorf("%s: %d requests of others are decided while an honest one waits, at most %d may be", name, n, overtaken)
		}
	})
	slices.Sort(took)
	middle := took[len(took)/2]
	stats, err := s.group.GetStats()
	if err != nil {
		s.Fatal(err)
	}
	s.Logf("%s: %d honest requests, %s in the middle, %s at most, overtaken by %d at most; memory %d MiB, at most %d",
		name, len(took), middle.Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), most,
		stats.MemoryStats.Usage.Usage>>20, stats.MemoryStats.Usage.MaxUsage>>20)
	return middle
}

// ask has the honest pod's node plugin ask, and waits for the decision. It returns how long that took once the API server
// had the request, and how many of others of its kind were decided since it was sent.
func (s *siege) ask() (took time.Duration, overtaken int) {
	s.Helper()
	s.asked++
	name := fmt.Sprint(honestName, s.asked)
	cr := s.request(s.honest, name)
	requests := s.requestsOf(s.plugin(honestNode))
	s.ledger.mu.Lock()
	before := s.ledger.others[cmapi.CertificateRequestKind]
	s.ledger.mu.Unlock()
	if _, err := requests.Create(s.Context(), cr, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
	began := time.Now()
	until(s.T, "the decision on an honest pod's request", func() (decided bool) {
		s.ledger.mu.Lock()
		defer s.ledger.mu.Unlock()
		overtaken, decided = s.ledger.honest[name]
		return decided
	})
	took = time.Since(began)
	s.decided(name, "Approved VerifiedByMayfly")
	if err := requests.Delete(s.Context(), name, metav1.DeleteOptions{}); err != nil {
		s.Fatal(err)
	}
	return took, overtaken - before
}

// flood has somebody create n requests as fast as the API server takes them.
func (s *siege) flood(ctx context.Context, config *rest.Config, n int, one func(i int) *cmapi.CertificateRequest) error {
	client, err := cmclient.NewForConfig(config)
	if err != nil {
		return err
	}
	calls, ctx := errgroup.WithContext(ctx)
	calls.SetLimit(floodWith)
	for i := range n {
		cr := one(i)
		cr.Name = fmt.Sprintf("%s-%d", cr.Name, i)
		calls.Go(func() error {
			_, err := client.CertmanagerV1().CertificateRequests(cr.Namespace).Create(ctx, cr, metav1.CreateOptions{})
			return err
		})
	}
	return calls.Wait()
}

// forged is what the node plugin of a node asks for a pod, which may be another node's.
func (s *siege) forged(pod *corev1.Pod, node, name string) (*cmapi.CertificateRequest, error) {
	cr, err := forge.Request(pod, name)
	if err != nil {
		return nil, err
	}
	cr.Spec.Username, cr.Spec.Extra = pluginAccount, map[string][]string{nodeKey: {node}}
	return cr, nil
}
