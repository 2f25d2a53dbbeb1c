package cluster_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/mayfly-csi/mayfly/signer/ca"
	"github.com/mayfly-csi/mayfly/signer/chain"
	"github.com/mayfly-csi/mayfly/signer/controller/authority"
	"github.com/mayfly-csi/mayfly/test/cluster"
)

// deletedSecret: a new CA is made, and those who got a certificate of the old one are trusted still. A bundle that is gone comes back.
func deletedSecret(t *testing.T) {
	r := replicate(t, authority.DefaultPlan(), false)
	old := r.ca(t, volumeSigner)
	until(t, "the bundle", func() bool { return published(t, volumeSigner) != nil })
	before := leafOf(t, old, time.Hour)
	deleteSecret(t, ownSecret)
	until(t, "both roots are published", func() bool { return len(roots(t, volumeSigner)) == 2 })
	now := r.ca(t, volumeSigner)
	if now.Certificate.Equal(old.Certificate) || len(now.Roots) != 1 || !roots(t, volumeSigner)[0].Equal(now.Certificate) {
		t.Errorf("%s signs, with %d roots", now, len(now.Roots))
	}
	for _, signed := range [][]*x509.Certificate{before, leafOf(t, now, time.Hour)} {
		if err := trusted(t, volumeSigner, signed); err != nil {
			t.Error(err)
		}
	}
	if leaving := published(t, volumeSigner).Annotations["csi.mayfly.dev/leaving"]; !strings.Contains(leaving, time.Now().Add(91*24*time.Hour).UTC().Format("2006-01-02")) {
		t.Errorf("the old root leaves at %s", leaving)
	}
	until(t, "the event", func() bool { return happened(t, ownSecret, "CAReplaced", now.String()) })
	if err := shared.Client.CertificatesV1().ClusterTrustBundles().Delete(t.Context(), bundleOf(volumeSigner), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "the bundle comes back", func() bool { return len(roots(t, volumeSigner)) == 1 })
}

// brokenSecret: what a person broke stays as it is, is told, and works again when it is mended.
func brokenSecret(t *testing.T) {
	r := replicate(t, authority.DefaultPlan(), false)
	whole := r.ca(t, volumeSigner)
	until(t, "the bundle", func() bool { return published(t, volumeSigner) != nil })
	key := secretOf(t, ownSecret).Data[corev1.TLSPrivateKeyKey]
	_, other, err := cluster.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	set(t, ownSecret, corev1.TLSPrivateKeyKey, other)
	const want = "Secret mayfly-ca/mayfly-ca: tls.crt and tls.key: read certificate and key: tls: private key does not match public key: mend it, or delete it to have a new CA made"
	until(t, "the event", func() bool { return happened(t, ownSecret, "CABroken", want) })
	if _, err := r.Get(t.Context(), volumeSigner); err == nil || !strings.HasPrefix(err.Error(), "Secret mayfly-ca/mayfly-ca: read certificate and key: ") {
		t.Errorf("a replica says: %v", err)
	}
	if n := r.failures(t); n != 1 {
		t.Errorf("%v failures", n)
	}
	if s := secretOf(t, ownSecret); !bytes.Equal(s.Data[corev1.TLSPrivateKeyKey], other) || len(roots(t, volumeSigner)) != 1 {
		t.Error("the Secret or the bundle was overwritten")
	}
	set(t, ownSecret, corev1.TLSPrivateKeyKey, key)
	if c := r.ca(t, volumeSigner); !c.Certificate.Equal(whole.Certificate) {
		t.Errorf("%s signs", c)
	}
	before := r.failures(t)
	set(t, ownSecret, "next.crt", []byte("x"))
	// An event like one before is no new one for some minutes.
	until(t, "it is counted again", func() bool { return r.failures(t) > before })
	if c := r.ca(t, volumeSigner); !c.Certificate.Equal(whole.Certificate) {
		t.Errorf("%s signs", c)
	}
}

// useless: Secrets that a person made are left as they are.
func useless(t *testing.T) {
	t.Cleanup(func() { forgetCorp(t) })
	over, err := ca.New("over", time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	key, err := over.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*corev1.Secret{
		{ObjectMeta: metav1.ObjectMeta{Name: ownSecret}},
		{ObjectMeta: metav1.ObjectMeta{Name: corpSecret}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": chain.Encode(over.Certificate), "tls.key": key, "ca.crt": chain.Encode(over.Certificate)}},
		{ObjectMeta: metav1.ObjectMeta{Name: "someones"}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": nil, "tls.key": []byte("secret")}},
	} {
		if _, err := shared.Client.CoreV1().Secrets(caNamespace).Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = shared.Client.CoreV1().Secrets(caNamespace).Delete(context.Background(), s.Name, metav1.DeleteOptions{})
		})
	}
	r := replicate(t, authority.DefaultPlan(), false)
	until(t, "the event of another type", func() bool {
		return happened(t, ownSecret, "CABroken", "it is of type Opaque, not kubernetes.io/tls: mend it, or delete it to have a new CA made")
	})
	until(t, "the event of one that is over", func() bool {
		return happened(t, corpSecret, "CABroken", "CN=over expired at "+over.Certificate.NotAfter.Format(time.RFC3339)+": see to its Certificate of cert-manager")
	})
	if _, err := r.Get(t.Context(), corpSigner); err == nil || !strings.Contains(err.Error(), "CN=over expired at ") {
		t.Errorf("a replica says: %v", err)
	}
	if published(t, volumeSigner) != nil || published(t, corpSigner) != nil {
		t.Error("roots of what can't be used are published")
	}
	cached := &corev1.Secret{}
	if err := r.Secrets.Get(t.Context(), types.NamespacedName{Namespace: caNamespace, Name: "someones"}, cached); err != nil || cached.Data != nil {
		t.Errorf("the cache has %v of another's Secret (%v)", cached.Data, err)
	}
}

func secretOf(t *testing.T, name string) *corev1.Secret {
	t.Helper()
	s, err := shared.Client.CoreV1().Secrets(caNamespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// set has a person write a key of a Secret.
func set(t *testing.T, name, key string, value []byte) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"data":{%q:%q}}`, key, encode(value))
	if _, err := shared.Client.CoreV1().Secrets(caNamespace).Patch(t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// certManagers: a Certificate of cert-manager with isCA, below a CA that is another after a while.
func certManagers(t *testing.T) {
	t.Cleanup(func() { forgetCorp(t) })
	r := replicate(t, authority.DefaultPlan(), false)
	if _, err := r.Get(t.Context(), corpSigner); err == nil || !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), "make a Certificate of cert-manager in namespace mayfly-ca with isCA: true and secretName: clusterissuer.corp") {
		t.Errorf("%v", err)
	}
	corpRoot(t)
	if err := shared.Issuer(t.Context(), caNamespace, "corp-root", cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "corp-root"}}); err != nil {
		t.Fatal(err)
	}
	_, err := shared.CertManager.CertmanagerV1().Certificates(caNamespace).Create(t.Context(), &cmapi.Certificate{
		ObjectMeta: metav1.ObjectMeta{Name: "corp"},
		Spec: cmapi.CertificateSpec{
			SecretName: corpSecret, CommonName: "corp", IsCA: true, IssuerRef: cmmeta.IssuerReference{Name: "corp-root"},
			PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm, Size: 256},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	old := r.ca(t, corpSigner)
	before := leafOf(t, old, time.Hour)
	until(t, "the bundle", func() bool { return published(t, corpSigner) != nil })
	if len(before) != 2 || len(roots(t, corpSigner)) != 1 || !bytes.Equal(chain.Encode(old.Roots...), []byte(published(t, corpSigner).Spec.TrustBundle)) {
		t.Errorf("a chain of %d certificates, %d roots", len(before), len(roots(t, corpSigner)))
	}
	if err := trusted(t, corpSigner, before); err != nil {
		t.Error(err)
	}

	corpRoot(t)
	deleteSecret(t, corpSecret) // cert-manager makes another.
	until(t, "both roots are published", func() bool { return len(roots(t, corpSigner)) == 2 })
	after := r.ca(t, corpSigner)
	if !roots(t, corpSigner)[0].Equal(after.Roots[0]) {
		t.Error("the CA's root is not the first")
	}
	for _, signed := range [][]*x509.Certificate{before, leafOf(t, after, time.Hour)} {
		if err := trusted(t, corpSigner, signed); err != nil {
			t.Error(err)
		}
	}
}

// corpRoot makes the root that cert-manager signs the CA with, in place of one that may be there.
func corpRoot(t *testing.T) {
	t.Helper()
	crt, key, err := cluster.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	_, err = shared.Client.CoreV1().Secrets(caNamespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "corp-root"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: crt, corev1.TLSPrivateKeyKey: key},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		patch := fmt.Appendf(nil, `{"data":{%q:%q,%q:%q}}`, corev1.TLSCertKey, encode(crt), corev1.TLSPrivateKeyKey, encode(key))
		_, err = shared.Client.CoreV1().Secrets(caNamespace).Patch(t.Context(), "corp-root", types.MergePatchType, patch, metav1.PatchOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func forgetCorp(t *testing.T) {
	ctx, gone := context.Background(), metav1.DeleteOptions{}
	for _, err := range []error{
		shared.CertManager.CertmanagerV1().Certificates(caNamespace).Delete(ctx, "corp", gone),
		shared.CertManager.CertmanagerV1().Issuers(caNamespace).Delete(ctx, "corp-root", gone),
		shared.Client.CoreV1().Secrets(caNamespace).Delete(ctx, "corp-root", gone),
		shared.Client.CoreV1().Secrets(caNamespace).Delete(ctx, corpSecret, gone),
		shared.Client.CertificatesV1().ClusterTrustBundles().Delete(ctx, bundleOf(corpSigner), gone),
	} {
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	}
}

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
