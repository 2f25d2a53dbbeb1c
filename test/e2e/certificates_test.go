package e2e

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/test/cluster"
)

func twentyPods(s *story) {
	const replicas = 20
	s.deploy(replicas, asks("duration=1m"))
	pods := s.readyPods(replicas)
	keys := map[string]string{}
	for _, pod := range pods {
		leaf := s.leaf(pod.Name)
		name, id := dnsName(pod), "spiffe://mayfly.test/ns/"+s.namespace+"/sa/default"
		if !slices.Equal(leaf.DNSNames, []string{name}) || len(leaf.URIs) != 1 || leaf.URIs[0].String() != id || leaf.IPAddresses != nil {
			s.Errorf("the certificate of pod %s is for %v, %v, %v", pod.Name, leaf.DNSNames, leaf.URIs, leaf.IPAddresses)
		}
		key := string(leaf.RawSubjectPublicKeyInfo)
		if other := keys[key]; other != "" {
			s.Errorf("pods %s and %s have the same key", pod.Name, other)
		}
		keys[key] = pod.Name
	}
	s.talk(pods, 2)
	for _, pod := range pods {
		s.untroubled(pod.Name)
	}
}

// talk has two pods, on different nodes, open mutual TLS connections to each other until both have rotated so many times.
func (s *story) talk(pods []corev1.Pod, rotations int) {
	s.Helper()
	one := pods[0]
	i := slices.IndexFunc(pods, func(p corev1.Pod) bool { return p.Spec.NodeName != one.Spec.NodeName })
	if i < 0 {
		s.Fatal("all pods are on one node")
	}
	other := pods[i]
	group, _ := errgroup.WithContext(s.Context())
	for _, pair := range [][2]corev1.Pod{{one, other}, {other, one}} {
		group.Go(func() error {
			out, err := s.exec(pair[0].Name, "/bin/workload", "call", pair[1].Status.PodIP, dnsName(pair[1]), fmt.Sprint(rotations))
			s.Logf("%s: %s", pair[0].Name, out)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		s.Error(err)
	}
}

func dnsName(pod corev1.Pod) string { return pod.Name + "." + pod.Namespace + ".svc" }

// deploy creates the Deployment `web` of pods of the workload.
func (s *story) deploy(replicas int32, changes ...change) {
	s.Helper()
	template := pod("web", changes...)
	_, err := shared.Client.AppsV1().Deployments(s.namespace).Create(s.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: template.Labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: template.Labels}, Spec: template.Spec},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
}

// readyPods waits until the Deployment is ready, and returns its pods.
func (s *story) readyPods(replicas int) []corev1.Pod {
	s.Helper()
	var pods *corev1.PodList
	s.until("the deployment to be ready", func(ctx context.Context) (err error) {
		pods, err = shared.Client.CoreV1().Pods(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
		if err != nil {
			return err
		}
		ready := 0
		for _, pod := range pods.Items {
			if isReady(&pod) {
				ready++
			}
		}
		if ready != replicas || len(pods.Items) != replicas {
			return fmt.Errorf("%d of %d pods are ready", ready, len(pods.Items))
		}
		return nil
	})
	return pods.Items
}

// The ACME server hangs for longer than the first call of the kubelet waits. One certificate is asked for. What cert-manager
// asks the ACME server for is its own: it has two orders now and then, while the Order of a finished request is deleted.
func acme(s *story) {
	if err := shared.ACMEIssuer(s.Context(), s.namespace, "acme"); err != nil {
		s.Fatal(err)
	}
	if err := shared.ControlPlane.Pause(s.Context(), "pebble"); err != nil {
		s.Fatal(err)
	}
	goOn := func() error { return shared.ControlPlane.Continue(context.Background(), "pebble") }
	s.Cleanup(func() { _ = goOn() }) // Which has been done, if all went well.
	name := "web." + cluster.Zone
	s.create(pod("web", asks("issuer-name=acme", "dns-names="+name, "uri-sans=")))
	s.says("web", "FailedMount", "not signed yet: CertificateRequest "+s.namespace+"/web-", "approved, waiting for Issuer acme: ")
	if err := goOn(); err != nil {
		s.Fatal(err)
	}
	s.ready("web")
	chain, err := s.exec("web", "cat", "/tls/tls.crt")
	if err != nil {
		s.Fatal(err)
	}
	s.publiclyShaped(chain, name)
	requests := map[string]bool{} // By their names: what timed out is created again by the same.
	eachAudited(s.T, func(e auditEvent) {
		if e.Verb == "create" && e.Object.Resource == "certificaterequests" && e.Object.Namespace == s.namespace {
			requests[e.Object.Name] = true
		}
	})
	if len(requests) != 1 {
		s.Errorf("asked for: %v", requests)
	}
}

// publiclyShaped demands a certificate for one name under an intermediate, as a public CA gives.
func (s *story) publiclyShaped(chain, name string) {
	s.Helper()
	leafBlock, rest := pem.Decode([]byte(chain))
	issuerBlock, _ := pem.Decode(rest)
	if leafBlock == nil || issuerBlock == nil {
		s.Fatalf("the chain is not of a leaf and an intermediate: %s", chain)
	}
	leaf, err := x509.ParseCertificate(leafBlock.Bytes)
	if err != nil {
		s.Fatal(err)
	}
	issuer, err := x509.ParseCertificate(issuerBlock.Bytes)
	if err != nil {
		s.Fatal(err)
	}
	if err := leaf.CheckSignatureFrom(issuer); err != nil {
		s.Error(err)
	}
	if !slices.Equal(leaf.DNSNames, []string{name}) || issuer.Subject.String() == issuer.Issuer.String() {
		s.Errorf("a certificate for %v, issued by %s, itself issued by %s", leaf.DNSNames, issuer.Subject, issuer.Issuer)
	}
}
