package cluster_test

import (
	"context"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"go.uber.org/goleak"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/podcertificate"
	"github.com/mayfly-csi/mayfly/signer/signertest"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// TestPodCertificates: what manifests/modes/pod-certificate makes of a real API server. A stand-in for mayfly-controller signs.
func TestPodCertificates(t *testing.T) {
	t.Run("nodes that may not ask our signer", nodesWithoutTheirRight)
	nodesMayAsk(t)
	t.Run("suite", podCertificateSuite)
	t.Run("the request", podCertificateRequest)
	t.Run("decisions against it", podCertificateRefused)
	t.Run("who may not ask", strangers)
	t.Run("a node that is made anew", nodeMadeAnew)
	t.Run("pods of the node", podsOfTheNode)
	t.Run("a pod of the node", aPodOfTheNode)
	t.Run("policy", podCertificatePolicy)
}

// nodesMayAsk applies what the mode says of nodes. Its other role is the node plugin's.
func nodesMayAsk(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(modeFile("node.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	documents := slices.DeleteFunc(strings.Split(string(text), "\n---\n"), func(d string) bool { return !strings.Contains(d, "\n  name: mayfly-nodes\n") })
	if out, err := shared.Kubectl(t.Context(), "apply", "-f", write(t, []byte(strings.Join(documents, "\n---\n")))); err != nil || strings.Count(out, "created") != 2 {
		t.Fatal(out, err)
	}
}

func (f *fleet) refused(err error, kind signer.Kind, want ...string) {
	f.Helper()
	if err == nil || signer.KindOf(err) != kind {
		f.Errorf("%v, want %s", err, kind)
		return
	}
	for _, text := range want {
		if !strings.Contains(err.Error(), text) {
			f.Errorf("got %v\nwant %s", err, text)
		}
	}
}

// brief ends before a signer that answers nothing does.
func brief(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for an error with a text: the API server's caches learn of rights and pods a little later.
func (f *fleet) eventually(s *podcertificate.Signer, of signer.Pod, want string) (err error) {
	f.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		if _, err = s.Sign(brief(f.T), f.request(of)); err != nil && strings.Contains(err.Error(), want) {
			return err
		}
	}
	f.Fatalf("got %v\nwant %s", err, want)
	return nil
}

func nodesWithoutTheirRight(t *testing.T) {
	f := newFleet(t, nil)
	of := f.pod("web", f.nodes[0], "default")
	err := f.eventually(f.signerOf(f.plugin(f.nodes[0]), f.nodes[0]), of, "does not mount")
	f.refused(err, signer.Denied, fmt.Sprintf("create PodCertificateRequest %s/web-", f.namespace),
		`does not mount a podCertificate projected volume for signer "csi.mayfly.dev/volume": nodes lack the right to ask this signer, of manifests/modes/pod-certificate/node.yaml`)
}

func podCertificateSuite(t *testing.T) {
	f := newFleet(t, nil)
	of := f.pod("web", f.nodes[0], "default")
	f.serve(&playedController{})
	s := f.signerOf(f.plugin(f.nodes[0]), f.nodes[0])
	f.ready(s, of)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	signertest.Run(t, signertest.Backend{Signer: s, Pod: func(*testing.T) signer.Pod { return of }})
}

// The controller finds in the request what it needs, and the pod gets its CA's certificate apart from the chain.
func podCertificateRequest(t *testing.T) {
	f := newFleet(t, nil)
	of := f.pod("web", f.nodes[0], "default")
	f.serve(&playedController{})
	config := f.plugin(f.nodes[0])
	s := f.signerOf(config, f.nodes[0])
	f.ready(s, of)
	req := f.request(of)
	req.Duration = 2 * time.Hour
	first, err := s.Sign(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if block, rest := pem.Decode(first.Chain); block == nil || len(rest) > 0 {
		t.Errorf("the chain is not the leaf alone: %s", first.Chain)
	}
	if block, rest := pem.Decode(first.CA); block == nil || len(rest) > 0 {
		t.Errorf("the CA is not one certificate: %s", first.CA)
	}
	again, err := f.signerOf(config, f.nodes[0]).Sign(t.Context(), req) // After a restart.
	if err != nil || string(again.Chain) != string(first.Chain) {
		t.Errorf("the attempt was begun a second time (%v)", err)
	}
	got, err := shared.Client.CertificatesV1().PodCertificateRequests(f.namespace).Get(t.Context(), podcertificate.ObjectName(req.Attempt), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	spec := got.Spec
	if spec.SignerName != "csi.mayfly.dev/volume" || *spec.MaxExpirationSeconds != 7200 || string(spec.StubPKCS10Request) != string(req.CSR) ||
		len(spec.UnverifiedUserAnnotations) != 1 || spec.UnverifiedUserAnnotations["csi.mayfly.dev/volume-id"] != "csi-web" ||
		len(got.OwnerReferences) != 1 || string(got.OwnerReferences[0].UID) != of.UID {
		t.Errorf("%+v", got)
	}
	other := f.request(of)
	other.Attempt = req.Attempt
	_, err = s.Sign(t.Context(), other)
	f.refused(err, signer.Failed, "PodCertificateRequest "+f.namespace+"/"+podcertificate.ObjectName(req.Attempt)+" is not as it was created: its spec was changed")
}

func podCertificateRefused(t *testing.T) {
	f := newFleet(t, nil)
	of := f.pod("web", f.nodes[0], "default")
	f.serve(&playedController{decide: func(r *certificatesv1.PodCertificateRequest) {
		switch {
		case strings.HasSuffix(r.Name, "denied-pcr"):
			condition(r, certificatesv1.PodCertificateRequestConditionTypeDenied, "NotAllowed", "a pod may not be a CA")
		case strings.HasSuffix(r.Name, "failed-pcr"):
			condition(r, certificatesv1.PodCertificateRequestConditionTypeFailed, "IssuerFailed", "no such issuer")
		}
	}})
	s := f.signerOf(f.plugin(f.nodes[0]), f.nodes[0])
	f.refused(f.eventually(s, of, "waiting for mayfly-controller"), signer.NotYet)
	for id, row := range map[string]struct {
		kind signer.Kind
		want string
	}{
		"denied": {signer.Denied, "NotAllowed: a pod may not be a CA"},
		"failed": {signer.Failed, "IssuerFailed: no such issuer"},
		"silent": {signer.NotYet, "waiting for mayfly-controller"},
	} {
		req := f.request(of)
		req.Attempt.ID = id
		_, err := s.Sign(brief(t), req)
		f.refused(err, row.kind, "PodCertificateRequest "+f.namespace+"/web-"+id+"-pcr: "+row.want)
	}
	gone := make(chan error, 1)
	req := f.request(of)
	req.Attempt.ID = "gone"
	go func() {
		_, err := s.Sign(t.Context(), req)
		gone <- err
	}()
	until(t, "the request is deleted", func() bool {
		return shared.Client.CertificatesV1().PodCertificateRequests(f.namespace).Delete(t.Context(), "web-gone-pcr", metav1.DeleteOptions{}) == nil
	})
	f.refused(<-gone, signer.Failed, "PodCertificateRequest "+f.namespace+"/web-gone-pcr was deleted before it was signed")
}

// nodeMadeAnew: a signer that remembers the UID of a node that was deleted and made again goes on.
func nodeMadeAnew(t *testing.T) {
	f := newFleet(t, nil)
	node := f.nodes[0]
	of := f.pod("web", node, "default")
	f.serve(&playedController{})
	s := f.signerOf(f.plugin(node), node)
	f.ready(s, of)
	if err := shared.Client.CoreV1().Nodes().Delete(t.Context(), node, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f.node(node)
	f.ready(s, of)
}

// asNodes is the binary on the first node, with no more than the token of a pod of it.
func (f *fleet) asNodes(args ...string) *node {
	f.Helper()
	n := f.idle(args...)
	n.start()
	return n
}

// idle is that, until it is started.
func (f *fleet) idle(args ...string) *node {
	f.Helper()
	n := idleNode(f.T, f.namespace, append([]string{"--node-name", f.nodes[0], "--signer=pod-certificate"}, args...)...)
	n.kubeconfig = kubeconfigOf(f.T, f.plugin(f.nodes[0]))
	return n
}

// kubeconfigOf writes a kubeconfig with the token of config.
func kubeconfigOf(t *testing.T, config *rest.Config) (path string) {
	t.Helper()
	text, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"mayfly": {Server: config.Host, CertificateAuthorityData: config.CAData}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"plugin": {Token: config.BearerToken}},
		Contexts:       map[string]*clientcmdapi.Context{"mayfly": {Cluster: "mayfly", AuthInfo: "plugin"}},
		CurrentContext: "mayfly",
	})
	if err != nil {
		t.Fatal(err)
	}
	return write(t, text)
}

// volume is a volume of a pod of the first node.
func (f *fleet) volume(name string, attributes ...string) kubelet.Volume {
	f.Helper()
	pod := f.pod(name, f.nodes[0], "default")
	v := kubelet.Volume{
		Pod:        kubelet.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ServiceAccount: pod.ServiceAccount},
		Attributes: map[string]string{"csi.mayfly.dev/issuer-name": "ca", "csi.mayfly.dev/dns-names": "${POD_NAME}.${POD_NAMESPACE}.svc"},
	}
	for _, a := range attributes {
		key, value, _ := strings.Cut(a, "=")
		v.Attributes["csi.mayfly.dev/"+key] = value
	}
	return v
}

// aPodOfTheNode gets its certificate from the binary, which asks as the node.
func aPodOfTheNode(t *testing.T) {
	f := newFleet(t, nil)
	f.serve(&playedController{})
	n := f.asNodes("--watch-pods")
	v := f.volume("web", "ip-sans=${POD_IP}", "continue-on-not-ready=true")
	target, err := n.Publish(t.Context(), n.driver, v)
	if err != nil {
		t.Fatal(err)
	}
	n.podIPs(v, "10.9.8.7")
	until(t, "the certificate", func() bool {
		_, err := os.Stat(filepath.Join(target, "tls.crt"))
		return err == nil
	})
	first := n.leaf(target)
	if len(first.IPAddresses) != 1 || first.DNSNames[0] != "web."+f.namespace+".svc" {
		t.Errorf("%v %v", first.IPAddresses, first.DNSNames)
	}
	n.annotate(v, time.Now().Add(time.Second).UTC().Format(time.RFC3339))
	until(t, "the renewal", func() bool { return !n.leaf(target).Equal(first) })
	list, err := shared.Client.CertificatesV1().PodCertificateRequests(f.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 2 || len(n.requests()) > 0 {
		t.Fatalf("%d PodCertificateRequests, %d CertificateRequests, %v", len(list.Items), len(n.requests()), err)
	}
	for _, r := range list.Items {
		if got := r.Spec.UnverifiedUserAnnotations[signer.VolumeAnnotation]; got != v.ID() {
			t.Errorf("it is of volume %s, not %s", got, v.ID())
		}
	}
	n.unpublish(v)

	short := f.volume("short", "duration=30m")
	_, err = n.Publish(t.Context(), n.driver, short)
	if want := "csi.mayfly.dev/duration is 30m0s, and this driver asks by PodCertificateRequests"; err == nil || !kubelet.Final(err) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}
