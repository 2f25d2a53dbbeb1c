package e2e

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// patience is for how long a story waits for anything that should happen soon. The machine is small and busy.
const patience = 3 * time.Minute

// A story is a test with a namespace of its own, in which the issuer `ca` signs.
type story struct {
	*testing.T
	namespace string
	roots     *x509.CertPool
}

// begin makes the namespace. At the end of the test it is deleted, and the logs are kept if the story went wrong.
func begin(t *testing.T) *story {
	t.Helper()
	s := &story{T: t, namespace: "story-" + strings.ToLower(regexp.MustCompile(`\W+|_`).ReplaceAllString(filepath.Base(t.Name()), "-"))}
	s.namespace = strings.Trim(s.namespace[:min(len(s.namespace), 63)], "-")
	t.Cleanup(s.end)
	ca, err := shared.Namespace(t.Context(), s.namespace)
	if err != nil {
		t.Fatal(err)
	}
	s.roots = x509.NewCertPool()
	s.roots.AppendCertsFromPEM(ca)
	return s
}

func (s *story) end() {
	ctx := context.Background() // The test's own has ended.
	if s.Failed() {
		keepLogs(ctx, s.T)
	}
	namespaces := shared.Client.CoreV1().Namespaces()
	if err := namespaces.Delete(ctx, s.namespace, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		s.Error(err)
	}
	err := eventually(ctx, "the namespace to go", func(ctx context.Context) error {
		_, err := namespaces.Get(ctx, s.namespace, metav1.GetOptions{})
		return gone(err)
	})
	if err != nil {
		s.Error(err)
		keepLogs(ctx, s.T)
	}
}

// gone turns "not found" into success.
func gone(err error) error {
	if err == nil {
		return errors.New("it is there")
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// keepLogs copies the logs of all components, and what kubectl says of all objects that matter, where they outlive the cluster.
func keepLogs(ctx context.Context, t *testing.T) {
	dir, err := filepath.Abs(filepath.Join("..", "..", "out", "e2e", time.Now().Format("150405")+"-"+filepath.Base(t.Name())))
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		t.Error(err)
		return
	}
	if out, err := exec.CommandContext(ctx, "cp", "--recursive", shared.Logs(), dir).CombinedOutput(); err != nil {
		t.Errorf("copy the logs: %v: %s", err, out)
	}
	const kinds = "nodes,pods,events,certificaterequests,issuers,orders,challenges"
	for name, args := range map[string][]string{
		"objects.yaml": {"get", kinds, "--all-namespaces", "--output=yaml"},
		"describe.txt": {"describe", "pods", "--all-namespaces"},
	} {
		text, err := shared.Kubectl(ctx, args...)
		if err := errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)); err != nil {
			t.Errorf("keep %s: %v", name, err)
		}
	}
	t.Logf("the logs of all components are in %s", dir)
}

// eventually tries again until it succeeds, for at most patience; it then tells of the last error.
func eventually(ctx context.Context, what string, try func(context.Context) error) error {
	return within(ctx, patience, what, try)
}

func within(ctx context.Context, atMost time.Duration, what string, try func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, atMost, true, func(ctx context.Context) (bool, error) {
		err := try(ctx)
		if err == nil || ctx.Err() == nil || last == nil { // A try that is cut short at the end says nothing.
			last = err
		}
		return err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("waited for %s: %w", what, last)
	}
	return nil
}

// until waits until try succeeds.
func (s *story) until(what string, try func(context.Context) error) {
	s.Helper()
	if err := eventually(s.Context(), what, try); err != nil {
		s.Fatal(err)
	}
}

// create creates a pod.
func (s *story) create(pod *corev1.Pod) {
	s.Helper()
	if _, err := shared.Client.CoreV1().Pods(s.namespace).Create(s.Context(), pod, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
}

// start creates pods and waits until they are ready.
func (s *story) start(pods ...*corev1.Pod) {
	s.Helper()
	for _, pod := range pods {
		s.create(pod)
	}
	for _, pod := range pods {
		s.ready(pod.Name)
	}
}

// ready waits until the pod is ready, and returns it.
func (s *story) ready(name string) *corev1.Pod {
	s.Helper()
	s.until("pod "+name+" to be ready", s.isReady(name))
	pod, err := shared.Client.CoreV1().Pods(s.namespace).Get(s.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return pod
}

func (s *story) isReady(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		pod, err := shared.Client.CoreV1().Pods(s.namespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil && !isReady(pod) {
			err = fmt.Errorf("it is %s: %+v", pod.Status.Phase, pod.Status.ContainerStatuses)
		}
		return err
	}
}

func isReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// delete deletes a pod and waits until it is gone.
func (s *story) delete(name string) {
	s.Helper()
	if _, err := s.kubectl("delete", "pod", name, "--wait=false"); err != nil {
		s.Fatal(err)
	}
	s.until("pod "+name+" to go", s.podGone(name))
}

func (s *story) podGone(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := shared.Client.CoreV1().Pods(s.namespace).Get(ctx, name, metav1.GetOptions{})
		return gone(err)
	}
}

// kubectl runs kubectl in the story's namespace.
func (s *story) kubectl(args ...string) (string, error) {
	return shared.Kubectl(s.Context(), append([]string{"--namespace", s.namespace}, args...)...)
}

// exec runs a command in a pod's container, the first one if none is named after the pod: "web" or "web/app".
func (s *story) exec(in string, argv ...string) (string, error) {
	pod, container, _ := strings.Cut(in, "/")
	return s.kubectl(append([]string{"exec", pod, "--container=" + container, "--"}, argv...)...)
}

// leaf is the certificate that a container sees at /tls, which must be valid.
func (s *story) leaf(in string) *x509.Certificate {
	s.Helper()
	text, err := s.exec(in, "cat", "/tls/tls.crt")
	if err != nil {
		s.Fatal(err)
	}
	return s.certificate(text)
}

// certificate reads a certificate, which must be valid.
func (s *story) certificate(text string) *x509.Certificate {
	s.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		s.Fatalf("not a certificate: %s", text)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		s.Fatal(err)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: s.roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		s.Fatal(err)
	}
	return leaf
}

// says waits until kubectl describe says something of a pod.
func (s *story) says(pod string, words ...string) {
	s.Helper()
	s.until(fmt.Sprintf("describe to say %q", words), func(context.Context) error {
		text, err := s.kubectl("describe", "pod", pod)
		if err != nil {
			return err
		}
		for _, w := range words {
			if !strings.Contains(text, w) {
				return fmt.Errorf("%q is missing: %s", w, text)
			}
		}
		return nil
	})
}

// untroubled demands that the workload of a pod always had a valid certificate. It returns how many it saw.
func (s *story) untroubled(pod string) (certificates int) {
	s.Helper()
	text, err := s.kubectl("logs", pod)
	if err != nil {
		s.Fatal(err)
	}
	if strings.Contains(text, "trouble:") {
		s.Errorf("pod %s had trouble:\n%s", pod, text)
	}
	return strings.Count(text, "certificate ")
}

// rotate waits until the workload of each pod has seen another certificate, and never had trouble.
func (s *story) rotate(pods []corev1.Pod) {
	s.Helper()
	before := map[string]int{}
	for _, pod := range pods {
		before[pod.Name] = s.untroubled(pod.Name)
	}
	for _, pod := range pods {
		s.until("pod "+pod.Name+" to rotate", func(context.Context) error {
			if s.untroubled(pod.Name) == before[pod.Name] {
				return errors.New("it has the certificate that it had")
			}
			return nil
		})
	}
}

// neverRestarted demands that the Deployment's pods are ready and were started once.
func (s *story) neverRestarted(replicas int) {
	s.Helper()
	for _, pod := range s.readyPods(replicas) {
		if n := pod.Status.ContainerStatuses[0].RestartCount; n != 0 {
			s.Errorf("pod %s was restarted %d times", pod.Name, n)
		}
	}
}
