package cluster_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/config"
	runtimelog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/mayfly-csi/mayfly/signer/ca"
	"github.com/mayfly-csi/mayfly/signer/chain"
	"github.com/mayfly-csi/mayfly/signer/controller/authority"
	"github.com/mayfly-csi/mayfly/test/cluster"
)

const (
	system       = "mayfly-system"
	caNamespace  = "mayfly-ca"
	ownSecret    = "mayfly-ca"
	volumeSigner = "csi.mayfly.dev/volume"
	corpSigner   = "csi.mayfly.dev/clusterissuer.corp"
	corpSecret   = "clusterissuer.corp"
)

// TestAuthority: the CAs of a controller that has the rights of manifests/controller and manifests/modes/pod-certificate and no others.
func TestAuthority(t *testing.T) {
	runtimelog.SetLogger(logr.FromSlogHandler(slog.DiscardHandler))
	manifests := filepath.Join("..", "..", "manifests")
	_, err := shared.Kubectl(t.Context(), "apply", "-f", filepath.Join(manifests, "00-namespace.yaml"),
		"-f", filepath.Join(manifests, "authority"), "-f", modeFile("authority.yaml"),
		"-f", filepath.Join(manifests, "controller", "rbac.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"it is made once", madeOnce}, {"the API server takes what it signs", podCertificate}, {"one replica leads", leads}, {"rotation", rotates},
		{"a deleted Secret", deletedSecret}, {"a broken Secret", brokenSecret}, {"Secrets that can't be used", useless}, {"cert-manager's", certManagers},
		{"bundles of others", bundlesOfOthers},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Cleanup(func() { forgetCAs(t) })
			row.run(t)
		})
	}
}

// forgetCAs removes what a controller made.
func forgetCAs(t *testing.T) {
	ctx := context.Background()
	for _, err := range []error{
		shared.Client.CoreV1().Secrets(caNamespace).Delete(ctx, ownSecret, metav1.DeleteOptions{}),
		shared.Client.CertificatesV1().ClusterTrustBundles().Delete(ctx, bundleOf(volumeSigner), metav1.DeleteOptions{}),
		shared.Client.EventsV1().Events(caNamespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}),
	} {
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	}
}

func bundleOf(signer string) string { return strings.ReplaceAll(signer, "/", ":") + ":ca" }

// A replica is a controller that keeps CAs.
type replica struct {
	authority.Reader
	metrics *prometheus.Registry
	log     text
	end     func()
}

// replicate starts a replica, which waits to lead if it is elected.
func replicate(t *testing.T, plan authority.Plan, elected bool) *replica {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), certificatesv1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	names := authority.Names{Namespace: caNamespace, Own: ownSecret, Domain: "csi.mayfly.dev"}
	m, err := manager.New(as(t, controllerAccount, nil), manager.Options{
		Scheme: scheme, Cache: cache.Options{ByObject: names.Cache()}, Metrics: server.Options{BindAddress: "0"},
		LeaderElection: elected, LeaderElectionID: "mayfly-controller", LeaderElectionNamespace: caNamespace, LeaderElectionReleaseOnCancel: true,
		Controller: config.Controller{SkipNameValidation: new(true)}, // Each is a process elsewhere.
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{Reader: authority.Reader{Names: names, Secrets: m.GetClient()}, metrics: prometheus.NewRegistry(), log: newText(t)}
	keeper, err := authority.New(authority.Config{
		Names: names, Plan: plan, API: m.GetClient(), Live: m.GetAPIReader(), Events: m.GetEventRecorder("mayfly-controller"),
		Metrics: r.metrics, Log: slog.New(slog.NewTextHandler(r.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := keeper.Add(m); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Start(ctx) }()
	r.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(r.log)
		}
	})
	t.Cleanup(r.end)
	if !m.GetCache().WaitForCacheSync(ctx) {
		t.Fatal("the cache has nothing")
	}
	return r
}

// ca waits for the CA that a replica signs with.
func (r *replica) ca(t *testing.T, signer string) (c ca.CA) {
	t.Helper()
	until(t, "a CA for "+signer, func() (ok bool) {
		var err error
		c, err = r.Get(t.Context(), signer)
		return err == nil
	})
	return c
}

// failures is the metric.
func (r *replica) failures(t *testing.T) (n float64) {
	t.Helper()
	families, err := r.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "mayfly_controller_ca_failures_total" {
			for _, m := range f.GetMetric() {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// leafOf is a certificate that lasts so long, with what is sent with it.
func leafOf(t *testing.T, c ca.CA, lasts time.Duration) []*x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	return sign(t, c, &x509.Certificate{
		PublicKey: key.Public(), DNSNames: []string{"web.test"}, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(lasts), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

// sign is a template's certificate, with what is sent with it.
func sign(t *testing.T, c ca.CA, template *x509.Certificate) []*x509.Certificate {
	t.Helper()
	issued, err := c.Sign(template)
	if err != nil {
		t.Fatal(err)
	}
	sent, err := ca.Decode(issued.Chain)
	if err != nil {
		t.Fatal(err)
	}
	return sent
}

// published is a signer's bundle; nil: there is none.
func published(t *testing.T, signer string) *certificatesv1.ClusterTrustBundle {
	t.Helper()
	b, err := shared.Client.CertificatesV1().ClusterTrustBundles().Get(t.Context(), bundleOf(signer), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	if b.Spec.SignerName != signer {
		t.Errorf("%s is of signer %s", b.Name, b.Spec.SignerName)
	}
	return b
}

// roots are those that are published, for a signer.
func roots(t *testing.T, signer string) []*x509.Certificate {
	t.Helper()
	b := published(t, signer)
	if b == nil {
		return nil
	}
	all, err := ca.Decode([]byte(b.Spec.TrustBundle))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// trusted is why whoever follows the signer's bundle does not accept what was signed.
func trusted(t *testing.T, signer string, signed []*x509.Certificate) error {
	t.Helper()
	trust, between := x509.NewCertPool(), x509.NewCertPool()
	for _, root := range roots(t, signer) {
		trust.AddCert(root)
	}
	for _, above := range signed[1:] {
		between.AddCert(above)
	}
	_, err := signed[0].Verify(x509.VerifyOptions{DNSName: "web.test", Roots: trust, Intermediates: between})
	return err
}

// happened reports whether an event of a Secret is there.
func happened(t *testing.T, secret, reason, note string) bool {
	t.Helper()
	events, err := shared.Client.EventsV1().Events(caNamespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events.Items {
		if e.Regarding.Name == secret && e.Reason == reason && strings.Contains(e.Note, note) {
			return true
		}
	}
	return false
}

// madeOnce: several that believe to lead make one CA between them.
func madeOnce(t *testing.T) {
	var all []*replica
	for range 4 {
		all = append(all, replicate(t, authority.DefaultPlan(), false))
	}
	first := all[0].ca(t, volumeSigner)
	until(t, "the bundle", func() bool { return published(t, volumeSigner) != nil })
	for _, r := range all {
		if c := r.ca(t, volumeSigner); !c.Certificate.Equal(first.Certificate) {
			t.Errorf("%s and %s sign", c, first)
		}
		r.end()
	}
	if all := roots(t, volumeSigner); len(all) != 1 || !all[0].Equal(first.Certificate) {
		t.Errorf("%d roots are published", len(all))
	}
	if err := trusted(t, volumeSigner, leafOf(t, first, time.Hour)); err != nil {
		t.Error(err)
	}
	if !happened(t, ownSecret, "CAMade", first.String()) {
		t.Error("there is no event")
	}
}

// podCertificate: an hour is the least that the API server takes, and a request's lifetime the most.
func podCertificate(t *testing.T) {
	c := replicate(t, authority.DefaultPlan(), false).ca(t, volumeSigner)
	ns := namespace(t)
	for _, lifetime := range []time.Duration{time.Hour, 91 * 24 * time.Hour} {
		name := strings.ToLower(fmt.Sprintf("r%.0f", lifetime.Hours()))
		csr, key := stub(t)
		requests := shared.Client.CertificatesV1().PodCertificateRequests(ns)
		pcr, err := requests.Create(t.Context(), &certificatesv1.PodCertificateRequest{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: certificatesv1.PodCertificateRequestSpec{
				SignerName: volumeSigner, PodName: "web", PodUID: "1", ServiceAccountName: "default", ServiceAccountUID: "1", NodeName: "node-a", NodeUID: "1",
				MaxExpirationSeconds: new(int32(lifetime.Seconds())), StubPKCS10Request: csr,
			},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		begin, end, err := c.Validity(now, lifetime)
		if err != nil {
			t.Fatal(err)
		}
		signed := sign(t, c, &x509.Certificate{PublicKey: key, DNSNames: []string{"web.test"}, NotBefore: begin, NotAfter: end})
		pcr.Status = certificatesv1.PodCertificateRequestStatus{
			Conditions:       []metav1.Condition{{Type: certificatesv1.PodCertificateRequestConditionTypeIssued, Status: metav1.ConditionTrue, Reason: "Signed", LastTransitionTime: metav1.Now()}},
			CertificateChain: string(chain.Encode(signed...)), NotBefore: new(metav1.NewTime(begin)), NotAfter: new(metav1.NewTime(end)), BeginRefreshAt: new(metav1.NewTime(begin.Add(end.Sub(begin) / 2))),
		}
		if _, err := requests.UpdateStatus(t.Context(), pcr, metav1.UpdateOptions{}); err != nil {
			t.Errorf("%s: %v", lifetime, err)
		}
		if err := trusted(t, volumeSigner, signed); err != nil {
			t.Error(err)
		}
	}
}

func stub(t *testing.T) (csr []byte, public *ecdsa.PublicKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key); err != nil {
		t.Fatal(err)
	}
	return csr, &key.PublicKey
}

// leads: all replicas sign, one writes; when it is gone, another does.
func leads(t *testing.T) {
	first := replicate(t, authority.DefaultPlan(), true)
	c := first.ca(t, volumeSigner)
	second := replicate(t, authority.DefaultPlan(), true)
	if got := second.ca(t, volumeSigner); !got.Certificate.Equal(c.Certificate) {
		t.Errorf("%s and %s sign", got, c)
	}
	first.end()
	deleteSecret(t, ownSecret)
	until(t, "the second leads", func() bool {
		now, err := second.Get(t.Context(), volumeSigner)
		return err == nil && !now.Certificate.Equal(c.Certificate)
	})
	if log := first.log.String(); strings.Count(log, "CA rotated") != 1 {
		t.Error(log)
	}
}

func deleteSecret(t *testing.T, name string) {
	t.Helper()
	if err := shared.Client.CoreV1().Secrets(caNamespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// rotates: two that believe to lead rotate the CA, and what was signed is trusted at any time.
func rotates(t *testing.T) {
	plan := authority.Plan{Lifetime: 20 * time.Second, Leaf: 9 * time.Second, Ahead: 4 * time.Second}
	first, second := replicate(t, plan, false), replicate(t, plan, false)
	first.ca(t, volumeSigner)
	until(t, "the bundle", func() bool { return published(t, volumeSigner) != nil })
	known, signers, begun := map[string]bool{}, map[string]bool{}, time.Now()
	var valid [][]*x509.Certificate
	until(t, "three CAs sign", func() bool {
		for _, root := range roots(t, volumeSigner) {
			known[root.Subject.String()] = true
		}
		c, err := second.Get(t.Context(), volumeSigner)
		if err != nil {
			t.Fatal(err)
		}
		signers[c.String()] = true
		valid = append(valid, leafOf(t, c, 2*time.Second))
		for _, signed := range valid {
			if err := trusted(t, volumeSigner, signed); err != nil && time.Now().Before(signed[0].NotAfter) {
				t.Errorf("%s after the begin: of %s: %v", time.Since(begun), signed[0].Issuer, err)
			}
		}
		for len(valid) > 0 && time.Now().After(valid[0][0].NotAfter) {
			valid = valid[1:]
		}
		time.Sleep(100 * time.Millisecond)
		return len(signers) == 3
	})
	until(t, "the first root goes", func() bool {
		for _, root := range roots(t, volumeSigner) {
			if time.Since(root.NotAfter) > 0 {
				return false
			}
		}
		return true
	})
	if len(known) > len(signers)+1 {
		t.Errorf("of %d CAs that were published, %d signed: keys were lost", len(known), len(signers))
	}
}

// bundlesOfOthers: the controller keeps its own bundles under the policy of the mode, and changes nobody else's, for which the API server asks for no right to attest.
func bundlesOfOthers(t *testing.T) {
	if _, err := shared.Kubectl(t.Context(), "apply", "-f", modeFile("policies.yaml")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = shared.Kubectl(context.Background(), "delete", "-f", modeFile("policies.yaml")) })
	const only = "mayfly-controller may write the ClusterTrustBundles of its own signers alone"
	s := &stage{T: t}
	c, _, err := cluster.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	theirs := &certificatesv1.ClusterTrustBundle{
		ObjectMeta: metav1.ObjectMeta{Name: "theirs"}, Spec: certificatesv1.ClusterTrustBundleSpec{TrustBundle: string(c)},
	}
	theirs, err = shared.Client.CertificatesV1().ClusterTrustBundles().Create(t.Context(), theirs, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = shared.Client.CertificatesV1().ClusterTrustBundles().Delete(context.Background(), theirs.Name, metav1.DeleteOptions{})
	})
	client, err := kubernetes.NewForConfig(as(t, controllerAccount, nil))
	if err != nil {
		t.Fatal(err)
	}
	another := theirs.DeepCopy()
	another.Name, another.ResourceVersion = "another", ""
	until(t, "the policy is in force", func() bool {
		_, err := client.CertificatesV1().ClusterTrustBundles().Create(t.Context(), another, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil
	})
	_, err = client.CertificatesV1().ClusterTrustBundles().Create(t.Context(), another, metav1.CreateOptions{})
	s.refused("it makes one of no signer", err, only)
	theirs.Labels = map[string]string{"example.org/seen": "yes"}
	_, err = client.CertificatesV1().ClusterTrustBundles().Update(t.Context(), theirs, metav1.UpdateOptions{})
	s.refused("it changes somebody's", err, only)
	r := replicate(t, authority.DefaultPlan(), false)
	until(t, "the bundle", func() bool { return published(t, volumeSigner) != nil })
	if now := r.ca(t, volumeSigner); !roots(t, volumeSigner)[0].Equal(now.Certificate) {
		t.Errorf("%s signs, which is not published", now)
	}
}
