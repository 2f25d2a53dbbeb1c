package cluster_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/podcertificate"
	"github.com/mayfly-csi/mayfly/signer/spec"
	"github.com/mayfly-csi/mayfly/test/cluster"
)

// modeFile is a manifest of the mode.
func modeFile(name string) string {
	return filepath.Join("..", "..", "manifests", "modes", "pod-certificate", name)
}

// A fleet is a namespace with two nodes, which have no kubelets, and on each a node plugin: a service account's token that is bound to a pod of it.
type fleet struct {
	*testing.T
	namespace string
	nodes     [2]string
}

// newFleet makes a fleet whose node plugins have the rights of the mode, but for those that without takes out.
func newFleet(t *testing.T, without func(*rbacv1.PolicyRule)) *fleet {
	t.Helper()
	f := &fleet{T: t, namespace: namespace(t)}
	for i, letter := range []string{"a", "b"} {
		f.nodes[i] = f.namespace + "-" + letter
		f.node(f.nodes[i])
	}
	f.account("mayfly")
	f.account("default")
	f.grant(without)
	return f
}

func (f *fleet) node(name string) {
	f.Helper()
	nodes := shared.Client.CoreV1().Nodes()
	if _, err := nodes.Create(f.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = nodes.Delete(context.Background(), name, metav1.DeleteOptions{}) })
}

func (f *fleet) account(name string) {
	f.Helper()
	_, err := shared.Client.CoreV1().ServiceAccounts(f.namespace).Create(f.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		f.Fatal(err)
	}
}

// grant binds the mode's ClusterRole to the node plugins, under a name of the fleet's own.
func (f *fleet) grant(without func(*rbacv1.PolicyRule)) {
	f.Helper()
	role := &rbacv1.ClusterRole{}
	if err := document(modeFile("node.yaml"), "ClusterRole", role); err != nil {
		f.Fatal(err)
	}
	for i := range role.Rules {
		if without != nil {
			without(&role.Rules[i])
		}
	}
	role.Name = f.namespace
	role.Rules = slices.DeleteFunc(role.Rules, func(r rbacv1.PolicyRule) bool { return len(r.Verbs) == 0 || len(r.Resources) == 0 })
	if _, err := shared.Client.RbacV1().ClusterRoles().Create(f.Context(), role, metav1.CreateOptions{}); err != nil {
		f.Fatal(err)
	}
	_, err := shared.Client.RbacV1().ClusterRoleBindings().Create(f.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: f.namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "mayfly", Namespace: f.namespace}},
	}, metav1.CreateOptions{})
	if err != nil {
		f.Fatal(err)
	}
}

// pod makes a pod object on a node.
func (f *fleet) pod(name, node, account string) signer.Pod {
	f.Helper()
	pod, err := shared.Client.CoreV1().Pods(f.namespace).Create(f.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{NodeName: node, ServiceAccountName: account, Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		f.Fatal(err)
	}
	return signer.Pod{Namespace: f.namespace, Name: name, UID: string(pod.UID), ServiceAccount: account}
}

// plugin is the API server for the node plugin of a node.
func (f *fleet) plugin(node string) *rest.Config {
	f.Helper()
	pod := f.pod("mayfly-"+node, node, "mayfly")
	return f.token(&authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: types.UID(pod.UID)})
}

// token is the API server for a token of the node plugin's service account.
func (f *fleet) token(bound *authenticationv1.BoundObjectReference) *rest.Config {
	f.Helper()
	got, err := shared.Client.CoreV1().ServiceAccounts(f.namespace).CreateToken(f.Context(), "mayfly",
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bound}}, metav1.CreateOptions{})
	if err != nil {
		f.Fatal(err)
	}
	config := rest.AnonymousClientConfig(shared.REST)
	config.BearerToken = got.Status.Token
	return config
}

// signerOf is the signer of a node plugin that says it runs on the node.
func (f *fleet) signerOf(config *rest.Config, node string) *podcertificate.Signer {
	f.Helper()
	s, err := podcertificate.New(config, node)
	if err != nil {
		f.Fatal(err)
	}
	return s
}

// ready waits until the API server's caches know the node plugin's rights and the pod.
func (f *fleet) ready(s *podcertificate.Signer, pod signer.Pod) {
	f.Helper()
	until(f.T, "a request of the node plugin", func() bool {
		ctx, cancel := context.WithTimeout(f.Context(), 5*time.Second)
		defer cancel()
		_, err := s.Sign(ctx, f.request(pod))
		return err == nil
	})
}

// request asks for the pod with a new key.
func (f *fleet) request(pod signer.Pod) signer.Request {
	f.Helper()
	key, err := request.NewKey(spec.Key{Algorithm: spec.ECDSA, Size: 256})
	if err != nil {
		f.Fatal(err)
	}
	csr, err := volume.Volume{Spec: spec.Spec{Names: spec.Names{DNSNames: []string{"web.example"}}}}.CSR(key)
	if err != nil {
		f.Fatal(err)
	}
	return signer.Request{
		Attempt: signer.Attempt{ID: strings.ToLower(rand.Text()), Pod: pod}, Volume: "csi-" + pod.Name, CSR: csr, Duration: time.Hour,
	}
}

// A playedController signs PodCertificateRequests of a namespace, in the place of mayfly-controller.
type playedController struct {
	ca     tls.Certificate
	decide func(*certificatesv1.PodCertificateRequest) // Instead of signing; nil: it signs.
}

// serve signs until the test ends.
func (f *fleet) serve(b *playedController) {
	f.Helper()
	crt, key, err := cluster.NewCA()
	if err != nil {
		f.Fatal(err)
	}
	if b.ca, err = tls.X509KeyPair(crt, key); err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w, err := shared.Client.CertificatesV1().PodCertificateRequests(f.namespace).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		f.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for event := range w.ResultChan() {
			if r, ok := event.Object.(*certificatesv1.PodCertificateRequest); ok && event.Type == watch.Added {
				f.answer(ctx, b, r)
			}
		}
	}()
	f.Cleanup(func() {
		cancel()
		w.Stop()
		<-done
	})
}

func (f *fleet) answer(ctx context.Context, b *playedController, r *certificatesv1.PodCertificateRequest) {
	if b.decide != nil {
		b.decide(r)
	} else if err := b.sign(r); err != nil {
		f.Error(err)
	}
	if len(r.Status.Conditions) == 0 {
		return
	}
	if _, err := shared.Client.CertificatesV1().PodCertificateRequests(r.Namespace).UpdateStatus(ctx, r, metav1.UpdateOptions{}); err != nil && ctx.Err() == nil {
		f.Error(err)
	}
}

// sign writes into the status what the request's CSR asks for.
func (b *playedController) sign(r *certificatesv1.PodCertificateRequest) error {
	csr, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request)
	if err != nil {
		return err
	}
	begin := time.Now().Truncate(time.Second)
	end := begin.Add(time.Duration(*r.Spec.MaxExpirationSeconds) * time.Second)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: csr.Subject, NotBefore: begin, NotAfter: end,
		DNSNames: csr.DNSNames, IPAddresses: csr.IPAddresses, URIs: csr.URIs,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, b.ca.Leaf, csr.PublicKey, b.ca.PrivateKey)
	if err != nil {
		return err
	}
	condition(r, certificatesv1.PodCertificateRequestConditionTypeIssued, "Test", "")
	for _, certificate := range [][]byte{der, b.ca.Leaf.Raw} {
		r.Status.CertificateChain += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}))
	}
	r.Status.NotBefore, r.Status.NotAfter = new(metav1.NewTime(begin)), new(metav1.NewTime(end))
	r.Status.BeginRefreshAt = new(metav1.NewTime(begin.Add(30 * time.Minute)))
	return nil
}

func condition(r *certificatesv1.PodCertificateRequest, kind, reason, message string) {
	r.Status.Conditions = []metav1.Condition{{Type: kind, Status: metav1.ConditionTrue, Reason: reason, Message: message, LastTransitionTime: metav1.Now()}}
}
