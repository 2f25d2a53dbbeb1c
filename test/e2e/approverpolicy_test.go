package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/test/cluster"
	"github.com/mayfly-csi/mayfly/test/forge"
)

// approverPolicy runs cert-manager's approver-policy in the network of node-a until the story ends, with the rights of its chart and a policy that allows everything.
// It returns the path of its log.
func (s *story) approverPolicy() (log string) {
	s.Helper()
	path, definition, err := cluster.ApproverPolicy(s.Context(), s.Logf)
	if err != nil {
		s.Fatal(err)
	}
	s.define(definition, "approver-policy.yaml")
	return s.runController(path, "system:serviceaccount:cert-manager:approver-policy", "--leader-election-namespace=cert-manager", "--metrics-bind-address=0",
		"--readiness-probe-bind-address=0", "--webhook-host=127.0.0.1", "--webhook-port=6443")
}

// define applies the definition of a resource, and then a file of testdata, until the story ends.
func (s *story) define(definition, objects string) {
	s.Helper()
	objects = filepath.Join("testdata", objects)
	s.Cleanup(func() {
		if _, err := shared.Kubectl(context.Background(), "delete", "--ignore-not-found", "--filename", objects, "--filename", definition); err != nil {
			s.Error(err)
		}
	})
	for _, args := range [][]string{
		{"apply", "--server-side", "--filename", definition}, {"wait", "--for=condition=Established", "--filename", definition, "--timeout=1m"}, {"apply", "--filename", objects},
	} {
		if _, err := shared.Kubectl(s.Context(), args...); err != nil {
			s.Fatal(err)
		}
	}
}

// runController runs a controller in the network of node-a as a user until the story ends, and returns the path of its log.
func (s *story) runController(path, user string, args ...string) (log string) {
	s.Helper()
	text, err := shared.UserKubeconfig(user)
	if err != nil {
		s.Fatal(err)
	}
	text = bytes.ReplaceAll(text, []byte(shared.REST.Host), []byte(shared.From("node-a", shared.REST).Host))
	dir := s.TempDir()
	kubeconfig, log := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "log")
	if err := os.WriteFile(kubeconfig, text, 0o600); err != nil {
		s.Fatal(err)
	}
	out, err := os.Create(log)
	if err != nil {
		s.Fatal(err)
	}
	process := shared.Node("node-a").InNetwork(context.Background(), append([]string{path, "--kubeconfig=" + kubeconfig}, args...)...)
	process.Stdout, process.Stderr = out, out
	if err := process.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		err := errors.Join(process.Process.Signal(syscall.SIGTERM), process.Wait(), out.Close())
		if err != nil || s.Failed() {
			text, _ := os.ReadFile(log)
			s.Logf("%s ended with %v:\n%s", filepath.Base(path), err, text)
		}
	})
	return log
}

// besideApproverPolicy is a cluster in which approver-policy would approve everything, first alone and then beside cert-manager's own approver.
func besideApproverPolicy(s *story) {
	s.controlled()
	log := s.approverPolicy()
	s.start(pod("web", own(), on("node-a")))
	web := s.ready("web")
	byHand(s, func() {
		if got := s.outcome(shared.CertManager, s.anothers(web)); !strings.HasPrefix(got, "Approved policy.cert-manager.io: ") {
			s.Errorf("another's request: %s", got)
		}
		s.decidedByMayfly(web, "good", "bad")
		s.controllers(0)
		client := s.thief("node-a").CertmanagerV1().CertificateRequests(s.namespace)
		if _, err := client.Create(s.Context(), s.ours(web, "early"), metav1.CreateOptions{}); err != nil {
			s.Fatal(err)
		}
		s.until("approver-policy to be refused", func(context.Context) error {
			text, err := os.ReadFile(log)
			if err == nil && !strings.Contains(string(text), "only mayfly-controller approves or denies the requests of Mayfly's node plugin") {
				err = errors.New("it was not")
			}
			return err
		})
		s.controllers(2)
		if got := s.decision("early"); !strings.HasPrefix(got, "Approved VerifiedByMayfly: ") {
			s.Errorf("what approver-policy saw first: %s", got)
		}
	})
	s.decidedByMayfly(web, "good-too", "bad-too")
	s.start(pod("late", own()))
	s.ready("late")
}

// anothers is a request as anyone may make one.
func (s *story) anothers(web *corev1.Pod) *cmapi.CertificateRequest {
	s.Helper()
	cr := s.ours(web, "anothers")
	cr.OwnerReferences = nil
	return cr
}

// ours is what the driver asks for the pod.
func (s *story) ours(web *corev1.Pod, name string) *cmapi.CertificateRequest {
	s.Helper()
	cr, err := forge.Request(web, name)
	if err != nil {
		s.Fatal(err)
	}
	return cr
}

// decidedByMayfly has the driver of node-a ask for what the pod's volume asks for, and for more.
func (s *story) decidedByMayfly(web *corev1.Pod, good, bad string) {
	s.Helper()
	more := s.ours(web, bad)
	more.Spec.Duration.Duration *= 2
	for want, cr := range map[string]*cmapi.CertificateRequest{"Approved VerifiedByMayfly: ": s.ours(web, good), "Denied NotTheVolumes: ": more} {
		if got := s.outcome(s.thief("node-a"), cr); !strings.HasPrefix(got, want) {
			s.Errorf("%s: %s, want %s", cr.Name, got, want)
		}
	}
}
