package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// Namespace makes a namespace with two issuers, `ca` and `self-signed`, and waits until they are ready. It returns the CA in PEM.
func (c *Cluster) Namespace(ctx context.Context, name string) ([]byte, error) {
	_, err := c.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("make namespace %s: %w", name, err)
	}
	crt, key, err := newCA()
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	_, err = c.Client.CoreV1().Secrets(name).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "ca"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: crt, corev1.TLSPrivateKeyKey: key},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("make the CA's secret: %w", err)
	}
	for issuer, config := range map[string]cmapi.IssuerConfig{
		"ca":          {CA: &cmapi.CAIssuer{SecretName: "ca"}},
		"self-signed": {SelfSigned: &cmapi.SelfSignedIssuer{}},
	} {
		if err := c.issuer(ctx, name, issuer, config); err != nil {
			return nil, err
		}
	}
	return crt, nil
}

func (c *Cluster) issuer(ctx context.Context, namespace, name string, config cmapi.IssuerConfig) error {
	client := c.CertManager.CertmanagerV1().Issuers(namespace)
	_, err := client.Create(ctx, &cmapi.Issuer{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: cmapi.IssuerSpec{IssuerConfig: config},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("make issuer %s: %w", name, err)
	}
	err = wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, startTimeout, true, func(ctx context.Context) (bool, error) {
		issuer, err := client.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		for _, condition := range issuer.Status.Conditions {
			if condition.Type == cmapi.IssuerConditionReady && condition.Status == cmmeta.ConditionTrue {
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("wait for issuer %s (log in %s): %w", name, c.Dir, err)
	}
	return nil
}

// Pod makes a pod object on a node that has no kubelet, and returns its UID: something that can own a request.
func (c *Cluster) Pod(ctx context.Context, namespace, name string) (uid string, err error) {
	pod, err := c.Client.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{NodeName: "node-a", Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("make pod %s/%s: %w", namespace, name, err)
	}
	return string(pod.UID), nil
}

// newCA is a CA for an issuer: certificate and key in PEM.
func newCA() (crt, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	crt = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return crt, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}
