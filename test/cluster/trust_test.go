package cluster_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// root is a CA certificate in PEM.
func root(t *testing.T, name string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	crt, err := selfSigned(name, key)
	if err != nil {
		t.Fatal(err)
	}
	return crt
}

func selfSigned(name string, key *ecdsa.PrivateKey) (string, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), err
}

// shows waits until the pod has the CA certificates.
func (n *node) shows(v kubelet.Volume, cas ...string) {
	n.t.Helper()
	until(n.t, "the pod has the CA certificates", func() bool { return n.cas(v) == strings.Join(cas, "") })
}

func (n *node) cas(v kubelet.Volume) string {
	n.t.Helper()
	var text []byte
	err := kubelet.ReadSet(n.Target(v), func(dir string) (err error) {
		text, err = os.ReadFile(filepath.Join(dir, "ca.crt"))
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return string(text)
}

// A place is where a source has its certificates.
type place struct {
	source  string
	missing string // What is said where it is not there; %s: the namespace.
	put     func(ctx context.Context, namespace, text string) error
	remove  func(ctx context.Context, namespace string) error
}

// bundle is a ClusterTrustBundle whose name has the namespace, so that tests do not meet.
func bundle(namespace, text string) *certificatesv1.ClusterTrustBundle {
	return &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: namespace}, Spec: certificatesv1.ClusterTrustBundleSpec{TrustBundle: text}}
}

func signersBundle(namespace, text string) *certificatesv1.ClusterTrustBundle {
	b := bundle(namespace, text)
	b.Name, b.Labels, b.Spec.SignerName = namespace+".mayfly.test:ca:v1", map[string]string{"tier": "web"}, namespace+".mayfly.test/ca"
	return b
}

func putBundle(ctx context.Context, b *certificatesv1.ClusterTrustBundle) error {
	client := shared.Client.CertificatesV1().ClusterTrustBundles()
	_, err := client.Create(ctx, b, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	now, err := client.Get(ctx, b.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	now.Spec.TrustBundle = b.Spec.TrustBundle
	_, err = client.Update(ctx, now, metav1.UpdateOptions{})
	return err
}

func putConfigMap(ctx context.Context, namespace, text string) error {
	client := shared.Client.CoreV1().ConfigMaps(namespace)
	c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "corp-ca"}, Data: map[string]string{"ca.crt": text}}
	_, err := client.Create(ctx, c, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = client.Update(ctx, c, metav1.UpdateOptions{})
	}
	return err
}

func removeBundle(ctx context.Context, name string) error {
	return shared.Client.CertificatesV1().ClusterTrustBundles().Delete(ctx, name, metav1.DeleteOptions{})
}

// trustNode is a node whose plugin may read ConfigMaps, as manifests/trust has it, or those of some names alone.
func trustNode(t *testing.T, args ...string) *node {
	t.Helper()
	n := idleNode(t, namespace(t), args...)
	n.kubeconfig = reader(t, n.namespace, "config-maps")
	n.start()
	return n
}

// reader is a kubeconfig for a user with the role of the manifests and that of an option, for objects of these names, if there are any.
func reader(t *testing.T, user, option string, names ...string) string {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	role := &rbacv1.ClusterRole{}
	err := document(filepath.Join("..", "..", "manifests", "options", option+".yaml"), "ClusterRole", role)
	if err != nil {
		t.Fatal(err)
	}
	role.Name, role.Rules[0].ResourceNames = user, names
	if _, err := shared.Client.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{role.Name, "mayfly"} {
		_, err = shared.Client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: user + "-" + name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: user}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	text, err := shared.UserKubeconfig(user)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, text)
}

func TestSourcesOfTheCluster(t *testing.T) {
	for name, p := range map[string]place{
		"a ClusterTrustBundle": {
			"cluster-trust-bundle:%s", "ClusterTrustBundle %s not found",
			func(ctx context.Context, namespace, text string) error {
				return putBundle(ctx, bundle(namespace, text))
			},
			removeBundle,
		},
		"the ClusterTrustBundles of a signer": {
			"cluster-trust-bundle:%s.mayfly.test/ca", "no ClusterTrustBundle is of signer %s.mayfly.test/ca",
			func(ctx context.Context, namespace, text string) error {
				return putBundle(ctx, signersBundle(namespace, text))
			},
			func(ctx context.Context, namespace string) error {
				return removeBundle(ctx, signersBundle(namespace, "").Name)
			},
		},
		"those of them that have a label": {
			"cluster-trust-bundle:%s.mayfly.test/ca?tier=web", "no ClusterTrustBundle of signer %s.mayfly.test/ca has the labels tier=web",
			func(ctx context.Context, namespace, text string) error {
				return putBundle(ctx, signersBundle(namespace, text))
			},
			func(ctx context.Context, namespace string) error {
				return removeBundle(ctx, signersBundle(namespace, "").Name)
			},
		},
		"a ConfigMap": {
			"config-map:corp-ca/ca.crt", "ConfigMap %s/corp-ca not found",
			putConfigMap,
			func(ctx context.Context, namespace string) error {
				return shared.Client.CoreV1().ConfigMaps(namespace).Delete(ctx, "corp-ca", metav1.DeleteOptions{})
			},
		},
	} {
		t.Run(name, func(t *testing.T) { comesAndGoes(t, p) })
	}
}

// comesAndGoes has a pod wait for a source that comes, changes, goes, stays away over a restart of the driver, and comes back.
func comesAndGoes(t *testing.T, p place) {
	n := trustNode(t)
	with := func(text string) string { return strings.ReplaceAll(text, "%s", n.namespace) }
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	a, b, c := root(t, "a"), root(t, "b"), root(t, "c")
	v := n.pod("web", "trust="+with(p.source))
	n.refuses(v, "trust source "+with(p.source)+": "+with(p.missing))
	published := make(chan error, 1)
	go func() {
		_, err := n.Publish(context.Background(), n.driver, v)
		published <- err
	}()
	check(p.put(t.Context(), n.namespace, "a comment\n"+a+b))
	check(<-published)
	n.shows(v, a, b)
	leaf := n.leaf(n.Target(v))

	check(p.put(t.Context(), n.namespace, b+c))
	n.shows(v, b, c)
	check(p.remove(t.Context(), n.namespace))
	until(t, "the pod is told", func() bool {
		return n.told(v, "TrustBundleKept", with(p.missing)+"; the pod keeps the CA certificates that it has from "+with(p.source))
	})
	n.end(syscall.SIGKILL)
	n.start()
	until(t, "the source is looked at", func() bool { return strings.Count(n.log.String(), "no CA certificates from a trust source") >= 3 })
	n.publish(v)
	n.shows(v, b, c)
	check(p.put(t.Context(), n.namespace, a))
	n.shows(v, a)
	if !n.leaf(n.Target(v)).Equal(leaf) || strings.Count(n.log.String(), "certificate issued") != 1 {
		t.Error("a certificate was issued")
	}
	check(p.remove(t.Context(), n.namespace))
	n.unpublish(v)
}

// A ConfigMap can have anything.
func TestAConfigMapOfNoUse(t *testing.T) {
	n := trustNode(t)
	a, b := root(t, "a"), root(t, "b")
	v := n.pod("web", "trust=config-map:corp-ca/ca.crt")
	client := shared.Client.CoreV1().ConfigMaps(n.namespace)
	_, err := client.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "corp-ca"}, Data: map[string]string{"tls.crt": a}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n.refuses(v, "ConfigMap "+n.namespace+"/corp-ca has no key ca.crt; it has tls.crt")
	put := func(text string) {
		t.Helper()
		if err := putConfigMap(t.Context(), n.namespace, text); err != nil {
			t.Fatal(err)
		}
	}
	put(a)
	n.publish(v)
	for text, trouble := range map[string]string{
		"":                          ", key ca.crt: there is no certificate in 0 bytes",
		a + b[:len(b)/2]:            ", key ca.crt: PEM block 2: it has no END line",
		a + strings.Repeat("x", 50): "", // Text after a certificate is none.
	} {
		put(text)
		if trouble != "" {
			until(t, "the pod is told", func() bool { return n.told(v, "TrustBundleKept", trouble) })
		}
		n.shows(v, a)
	}
	put(b)
	n.shows(v, b)
	n.unpublish(v)
}

func TestWithoutTheRightToReadConfigMaps(t *testing.T) {
	n := newNode(t, namespace(t))
	v := n.pod("web", "trust=issuer,config-map:corp-ca/ca.crt")
	a := root(t, "a")
	if err := putConfigMap(t.Context(), n.namespace, a); err != nil {
		t.Fatal(err)
	}
	n.refuses(v, `configmaps "corp-ca" is forbidden: `, `cannot list resource "configmaps"`, "manifests/options/config-maps.yaml grants it")
	n.publish(n.pod("other")) // Who asks for no ConfigMap is not concerned.
	n.end(syscall.SIGTERM)
	n.kubeconfig = reader(t, n.namespace, "config-maps", "corp-ca") // A list of names is enough.
	n.start()
	n.publish(v)
	if !strings.HasSuffix(n.cas(v), a) {
		t.Error("the ConfigMap's certificate is not there")
	}
	n.unpublish(v)
}

// watches are how many watches of a resource the API server has open.
func watches(t *testing.T, resource string) (count int) {
	t.Helper()
	text, err := shared.Client.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for scanner := bufio.NewScanner(bytes.NewReader(text)); scanner.Scan(); {
		line := scanner.Text()
		if strings.HasPrefix(line, "apiserver_longrunning_requests{") && strings.Contains(line, `resource="`+resource+`"`) && strings.Contains(line, `verb="WATCH"`) {
			var n float64
			if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' '):], &n); err != nil {
				t.Fatal(err)
			}
			count += int(n)
		}
	}
	return count
}

func TestASourceIsWatchedOnceAndOnlyWhileItIsUsed(t *testing.T) {
	bundles, configMaps := watches(t, "clustertrustbundles"), watches(t, "configmaps")
	open := func(b, c int) func() bool {
		return func() bool {
			return watches(t, "clustertrustbundles") == bundles+b && watches(t, "configmaps") == configMaps+c
		}
	}
	n := trustNode(t)
	a := root(t, "a")
	if err := putBundle(t.Context(), bundle(n.namespace, a)); err != nil {
		t.Fatal(err)
	}
	if err := putConfigMap(t.Context(), n.namespace, a); err != nil {
		t.Fatal(err)
	}
	plain := n.pod("plain")
	n.publish(plain)
	if !open(0, 0)() {
		t.Error("a source is watched that nobody uses")
	}
	var using []kubelet.Volume
	for i := range 5 {
		v := n.pod(fmt.Sprint("web-", i), "trust=cluster-trust-bundle:"+n.namespace+",config-map:corp-ca/ca.crt")
		n.publish(v)
		using = append(using, v)
	}
	until(t, "each source is watched", open(1, 1))
	n.end(syscall.SIGTERM)
	until(t, "the watches end with the driver", open(0, 0))
	n.start()
	until(t, "each source is watched", open(1, 1))
	for _, v := range using[1:] {
		n.unpublish(v)
	}
	if !open(1, 1)() {
		t.Error("a source is not watched that is used")
	}
	n.unpublish(using[0])
	until(t, "no source is watched", open(0, 0))
	n.unpublish(plain)
}

// The issuer goes over to another CA while a bundle has both. No certificate that is valid lacks its root, whoever forgets it first.
func TestTheCAIsReplaced(t *testing.T) {
	n := trustNode(t)
	v := n.pod("web", "trust=issuer,config-map:corp-ca/ca.crt", "duration=10s")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	next, err := selfSigned("next CA", key)
	if err != nil {
		t.Fatal(err)
	}
	secrets := shared.Client.CoreV1().Secrets(n.namespace)
	secret, err := secrets.Get(t.Context(), "ca", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	old := string(secret.Data[corev1.TLSCertKey])
	if err := putConfigMap(t.Context(), n.namespace, old); err != nil {
		t.Fatal(err)
	}
	first := n.publish(v)
	n.shows(v, old)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	secret.Data = map[string][]byte{corev1.TLSCertKey: []byte(next), corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}
	if _, err := secrets.Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "a certificate of the new CA", func() bool { return n.leaf(n.Target(v)).Issuer.CommonName == "next CA" })
	last := n.leaf(n.Target(v))
	n.shows(v, next, old)
	if err := putConfigMap(t.Context(), n.namespace, next); err != nil { // Too early, for some certificates of the old CA are still valid.
		t.Fatal(err)
	}
	until(t, "the old root is gone", func() bool {
		got := n.cas(v)
		if time.Now().Before(first.NotAfter) && got != next+old {
			t.Fatalf("a certificate is valid until %s, and its root is not there", first.NotAfter)
		}
		return got == next
	})
	if n.leaf(n.Target(v)).NotAfter.Before(last.NotAfter) {
		t.Error("an older certificate came back")
	}
	n.unpublish(v)
}

// 200 volumes get a bundle's change, and no certificate.
func TestManyVolumesOfOneBundle(t *testing.T) {
	const volumes = 200
	n := trustNode(t, "--signer=local")
	a, b := root(t, "a"), root(t, "b")
	if err := putBundle(t.Context(), bundle(n.namespace, a)); err != nil {
		t.Fatal(err)
	}
	all := make([]kubelet.Volume, volumes)
	leaves := make([]*x509.Certificate, volumes)
	var publishing sync.WaitGroup
	for w := range 8 {
		publishing.Go(func() {
			for i := w; i < volumes; i += 8 {
				all[i] = kubelet.Volume{
					Pod:        kubelet.Pod{Namespace: n.namespace, Name: fmt.Sprint("web-", i), UID: fmt.Sprintf("uid-%d", i), ServiceAccount: "default"},
					Attributes: map[string]string{"csi.mayfly.dev/dns-names": "web", "csi.mayfly.dev/trust": "issuer,cluster-trust-bundle:" + n.namespace},
				}
				if _, err := n.Publish(t.Context(), n.driver, all[i]); err != nil {
					t.Error(err)
					return
				}
				leaves[i] = n.leaf(n.Target(all[i]))
			}
		})
	}
	publishing.Wait()
	if t.Failed() {
		return
	}
	if err := putBundle(t.Context(), bundle(n.namespace, b)); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	left := slices.Clone(all)
	until(t, "all volumes have the change", func() bool {
		left = slices.DeleteFunc(left, func(v kubelet.Volume) bool { return strings.HasSuffix(n.cas(v), b) })
		return len(left) == 0
	})
	t.Logf("%d volumes had the change after %s", volumes, time.Since(begin).Round(time.Millisecond))
	for i, v := range all {
		if !n.leaf(n.Target(v)).Equal(leaves[i]) {
			t.Errorf("%s got a certificate", v.Pod.Name)
		}
		n.unpublish(v)
	}
	if issued := strings.Count(n.log.String(), "certificate issued"); issued != volumes {
		t.Errorf("%d certificates were issued", issued)
	}
}

// The API server is no source: while it is away all stays as it is, and what was missed is made up for.
func TestSourcesWhileTheAPIServerIsAway(t *testing.T) {
	n := trustNode(t)
	a, b := root(t, "a"), root(t, "b")
	if err := putBundle(t.Context(), bundle(n.namespace, a)); err != nil {
		t.Fatal(err)
	}
	v := n.pod("web", "trust=cluster-trust-bundle:"+n.namespace)
	n.publish(v)
	t.Cleanup(func() { // Which has been done, if all went well.
		if err := shared.StartAPI(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	if err := shared.ControlPlane.Stop(t.Context(), "kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	n.end(syscall.SIGTERM)
	n.start()
	until(t, "the API server is missed", func() bool { return strings.Contains(n.log.String(), "the API server did not answer") })
	n.publish(v)
	n.shows(v, a)
	if err := shared.StartAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := putBundle(t.Context(), bundle(n.namespace, b)); err != nil {
		t.Fatal(err)
	}
	n.shows(v, b)
	if n.told(v, "TrustBundleKept", "") {
		t.Error("the pod was told of an API server that was away")
	}
	n.unpublish(v)
}
