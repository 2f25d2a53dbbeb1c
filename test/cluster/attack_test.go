package cluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
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
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer/ca"
	"github.com/mayfly-csi/mayfly/signer/chain"
	"github.com/mayfly-csi/mayfly/signer/controller/audit"
	"github.com/mayfly-csi/mayfly/test/forge"
)

const (
	honestNode = "node-honest"
	honestName = "honest-" // Of its requests; a number follows.
	thiefNode  = "node-thief"
	// overtaken is how many requests of attackers may be decided, of the honest one's kind, while an honest pod's waits:
	// those that are under way, and those that come while the API server takes the honest one and tells of it.
	overtaken = 150
	floodWith = 8  // Calls at a time.
	lowRate   = 8  // Of a node, in a second.
	burst     = 20 // How many seconds' worth of that may come at once.
)

// requestsOfTheThief is how many requests a thief of a token makes; make attack has 10,000 of them.
var requestsOfTheThief = flag.Int("thief", 800, "requests by a stolen token in TestUnderAttack")

// TestUnderAttack: while somebody attacks mayfly-controller, which has the memory of its manifest and no more, an honest
// pod of another node gets its decision before more than a few of the attackers get theirs, /healthz answers, and a
// thief's requests wait and are told of.
func TestUnderAttack(t *testing.T) {
	signs(t)
	s := &siege{stage: newStage(t), binary: plainController(t)}
	s.honest = s.podOn(honestNode, "honest", ownName())
	s.namespaces = []string{s.namespace}
	t.Cleanup(s.clear)
	until(t, "the node plugin may ask", func() bool {
		dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
		_, err := s.requestsOf(s.plugin(honestNode)).Create(t.Context(), s.request(s.honest, "probe"), dry)
		return err == nil
	})
	end := s.begin()
	s.usual = s.during("nothing", func(ask func()) {
		for range 10 {
			ask()
		}
	})
	s.attack("a pod of 1.4 MiB", s.largePod)
	s.attack("1,000 native sources", s.manySources)
	s.attack("a flood of strangers' requests", s.strangers)
	end()
	end = s.begin(fmt.Sprint("--node-rate=", lowRate)) // So that there is no need of a fast machine for a flood.
	s.attack("a storm of denials", s.denials)
	s.attack("requests by a stolen token", s.thief)
	s.limited()
	end()
	end = s.begin() // With all of the requests there.
	s.during("a restart", func(ask func()) { ask() })
	end()
}

// ownName returns attributes of a volume that asks for a name of its pod's own.
func ownName() map[string]string {
	return map[string]string{
		"csi.mayfly.dev/issuer-name": "ca", "csi.mayfly.dev/dns-names": "${POD_NAME}.${POD_NAMESPACE}.svc",
	}
}

// signs applies what the controller needs to decide, and to sign PodCertificateRequests, with a CA for native volumes.
func signs(t *testing.T) {
	t.Helper()
	manifests := filepath.Join("..", "..", "manifests")
	_, err := shared.Kubectl(t.Context(), "apply", "-f", filepath.Join(manifests, "00-namespace.yaml"),
		"-f", filepath.Join(manifests, "controller"), "-f", modeFile("authority.yaml"), "-f", modeFile("controller.yaml"))
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
	log := &text{}
	process.Stderr, process.Env = log, append(os.Environ(), env...)
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

// largePod has a pod of nearly the largest size that the API server stores, and its node plugin ask for each of its
// volumes, again and again.
func (s *siege) largePod(ctx context.Context) error {
	const node, volumes, times = "node-large", 100, 4
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "large", Namespace: s.namespace, Annotations: map[string]string{"example.org/a": strings.Repeat("a", 250<<10)}},
		Spec: corev1.PodSpec{
			NodeName: node, ServiceAccountName: "default", Containers: []corev1.Container{{
				Name: "app", Image: "app", Env: []corev1.EnvVar{{Name: "A", Value: strings.Repeat("a", 500<<10)}},
			}},
		},
	}
	var names []string
	for i := range 120 { // A request of more than cluster.MaxCached bytes.
		names = append(names, fmt.Sprintf("name-%d.with-many-more-letters.%s.svc", i, s.namespace))
	}
	for i := range volumes {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: fmt.Sprint("tls-", i), VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
			Driver: driverName, ReadOnly: new(true), VolumeAttributes: map[string]string{
				"csi.mayfly.dev/issuer-name": "ca", "csi.mayfly.dev/dns-names": strings.Join(names, ","),
			},
		}}})
	}
	pod, err := shared.Client.CoreV1().Pods(s.namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if size := pod.Size(); size < 14*(1<<20)/10 {
		return fmt.Errorf("the pod has %d bytes", size)
	}
	var asks []*cmapi.CertificateRequest
	for _, v := range pod.Spec.Volumes {
		one := pod.DeepCopy()
		one.Spec.Volumes = []corev1.Volume{v}
		cr, err := s.forged(one, node, "large")
		if err != nil {
			return err
		}
		asks = append(asks, cr)
	}
	err = s.flood(ctx, s.plugin(node), volumes*times, func(i int) *cmapi.CertificateRequest { return asks[i%volumes].DeepCopy() })
	if err != nil {
		return err
	}
	s.settled(node, volumes)
	s.decided("large-0", "Approved VerifiedByMayfly")
	return nil
}

// settled waits until so many requests of a node are decided.
func (s *siege) settled(node string, n int) {
	until(s.T, fmt.Sprintf("decisions on requests of %s", node), func() bool {
		s.ledger.mu.Lock()
		defer s.ledger.mu.Unlock()
		return s.ledger.byNode[node] >= n
	})
}

// manySources has kubelets ask for pods with 1,000 podCertificate sources: for one pod that has all of them, of which
// none is signed, and for eight that have 125 each.
func (s *siege) manySources(ctx context.Context) error {
	csr, _ := stub(s.T)
	all := func(pod, node string, n int) error {
		var sources []corev1.VolumeProjection
		for i := range n {
			sources = append(sources, corev1.VolumeProjection{PodCertificate: &corev1.PodCertificateProjection{
				SignerName: corpSigner, KeyType: "ECDSAP256", CredentialBundlePath: fmt.Sprintf("bundle-%d.pem", i),
				UserAnnotations: map[string]string{"csi.mayfly.dev/dns-names": fmt.Sprintf("name-%d.%s.svc", i, s.namespace)},
			}})
		}
		made, err := shared.Client.CoreV1().Pods(s.namespace).Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: pod}, Spec: corev1.PodSpec{
				NodeName: node, ServiceAccountName: "default", Containers: []corev1.Container{{Name: "app", Image: "app"}},
				Volumes: []corev1.Volume{{Name: "tls", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: sources}}}},
			},
		}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		calls, ctx := errgroup.WithContext(ctx)
		calls.SetLimit(floodWith)
		for i, source := range sources {
			calls.Go(func() error {
				_, err := shared.Client.CertificatesV1().PodCertificateRequests(s.namespace).Create(ctx, &certificatesv1.PodCertificateRequest{
					ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", pod, i)},
					Spec: certificatesv1.PodCertificateRequestSpec{
						SignerName: corpSigner, PodName: pod, PodUID: made.UID, ServiceAccountName: "default", ServiceAccountUID: "1",
						NodeName: types.NodeName(node), NodeUID: "1", MaxExpirationSeconds: new(int32(86400)),
						StubPKCS10Request: csr, UnverifiedUserAnnotations: source.PodCertificate.UserAnnotations,
					},
				}, metav1.CreateOptions{})
				return err
			})
		}
		return calls.Wait()
	}
	if err := all("all", "node-sources", 1000); err != nil {
		return err
	}
	for i := range 8 {
		if err := all(fmt.Sprint("eighth-", i), fmt.Sprint("node-sources-", i), 125); err != nil {
			return err
		}
	}
	for i := range 8 {
		s.settled(fmt.Sprint("node-sources-", i), 125)
	}
	return nil
}

// thief has a thief of a node plugin's token ask thousands of times, in eight namespaces: for a pod of its node, which
// may have what is asked for, and for one of another node.
func (s *siege) thief(ctx context.Context) error {
	n := *requestsOfTheThief
	var asks []*cmapi.CertificateRequest
	for range 8 { // More than have the node's share together.
		victim := s.besides()
		for _, pod := range []*corev1.Pod{victim.podOn(thiefNode, "own", ownName()), victim.podOn("node-other", "other", ownName())} {
			cr, err := s.forged(pod, thiefNode, "stolen-"+pod.Name)
			if err != nil {
				return err
			}
			asks = append(asks, cr)
		}
	}
	began := time.Now()
	err := s.flood(ctx, s.plugin(thiefNode), n, func(i int) *cmapi.CertificateRequest { return asks[i%len(asks)].DeepCopy() })
	if err != nil {
		return err
	}
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	decided, most := s.ledger.byNode[thiefNode], lowRate*(burst+time.Since(began).Seconds())
	s.Logf("the thief has %d decisions on %d requests after %s", decided, n, time.Since(began).Round(time.Second))
	if float64(decided) > most {
		return fmt.Errorf("the thief has %d decisions, and at most %.0f are a node's share", decided, most)
	}
	return nil
}

// besides is another namespace, without issuers.
func (s *siege) besides() *stage {
	name := fmt.Sprintf("%s-%d", s.namespace, len(s.namespaces))
	_, err := shared.Client.CoreV1().Namespaces().Create(s.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	s.namespaces = append(s.namespaces, name)
	return &stage{s.T, name}
}

// limited: that the thief's requests wait is told by an Event of the node, the metric and the audit record.
func (s *siege) limited() {
	s.Helper()
	want := fmt.Sprintf("node %s asks for more than %d certificates a second: the others wait", thiefNode, lowRate)
	s.ledger.mu.Lock()
	recorded := slices.ContainsFunc(s.ledger.limited, func(r audit.Record) bool {
		return r.Node == thiefNode && r.Message == want && r.Reason == "TooManyRequests" && r.Mode == audit.Driver
	})
	s.ledger.mu.Unlock()
	if !recorded {
		s.Errorf("the audit record has %+v", s.ledger.limited)
	}
	until(s.T, "the Event of the thief's node", func() bool {
		events, err := shared.Client.EventsV1().Events(metav1.NamespaceDefault).List(s.Context(), metav1.ListOptions{})
		return err == nil && slices.ContainsFunc(events.Items, func(e eventsv1.Event) bool {
			return e.Regarding.Kind == "Node" && e.Regarding.Name == thiefNode && e.Reason == "TooManyRequests" && e.Note == want
		})
	})
	page, err := s.page(s.metrics, "/metrics")
	if err != nil || !strings.Contains(page, `mayfly_controller_limited_total{node="`+thiefNode+`"} `) {
		s.Errorf("the metrics do not name the thief's node (%v)", err)
	}
}

// denials has pods of many nodes, the honest pod's among them, ask for what is denied, again and again.
func (s *siege) denials(ctx context.Context) error {
	const nodes, each = 5, 80
	of := s.besides()
	var asks []*cmapi.CertificateRequest
	for i := range nodes {
		node := fmt.Sprint("node-denied-", i)
		if i == 0 {
			node = honestNode
		}
		pod := of.podOn(node, fmt.Sprint("denied-", i), map[string]string{"csi.mayfly.dev/issuer-name": "ca", "csi.mayfly.dev/dns-names": "www.example.org"})
		cr, err := s.forged(pod, node, pod.Name)
		if err != nil {
			return err
		}
		asks = append(asks, cr)
	}
	calls, ctx := errgroup.WithContext(ctx)
	for _, cr := range asks {
		calls.Go(func() error {
			return s.flood(ctx, s.plugin(cr.Spec.Extra[nodeKey][0]), each, func(int) *cmapi.CertificateRequest { return cr.DeepCopy() })
		})
	}
	return calls.Wait()
}

// delete deletes all requests of a namespace.
func (s *siege) delete(ctx context.Context, namespace string) error {
	return shared.CertManager.CertmanagerV1().CertificateRequests(namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
}

// strangers has somebody else ask an issuer that is nothing to Mayfly.
func (s *siege) strangers(ctx context.Context) error {
	const n = 1000
	of := s.besides()
	cr := s.request(s.honest, "strange")
	cr.Namespace, cr.OwnerReferences, cr.Annotations = of.namespace, nil, map[string]string{"example.org/a": strings.Repeat("a", 16<<10)}
	cr.Spec.Username, cr.Spec.Extra = "admin", nil
	cr.Spec.IssuerRef.Group = "example.org"
	return s.flood(ctx, shared.REST, n, func(int) *cmapi.CertificateRequest { return cr.DeepCopy() })
}

// clear removes what attackers asked for, which would keep cert-manager busy.
func (s *siege) clear() {
	for _, namespace := range s.namespaces {
		// A call may take too long for the API server: it has deleted some.
		until(s.T, "the requests are deleted", func() bool { return s.delete(context.Background(), namespace) == nil })
	}
}
