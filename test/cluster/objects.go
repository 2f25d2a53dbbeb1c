package cluster

import (
	"context"
	"fmt"
	"os"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Namespace makes a namespace with two issuers, `ca` and `self-signed`, and waits until they are ready. It returns the CA in PEM.
func (c *Cluster) Namespace(ctx context.Context, name string) ([]byte, error) {
	_, err := c.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("make namespace %s: %w", name, err)
	}
	crt, key, err := NewCA()
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
		if err := c.Issuer(ctx, name, issuer, config); err != nil {
			return nil, err
		}
	}
	return crt, nil
}

// Issuer makes an issuer and waits until it is ready.
func (c *Cluster) Issuer(ctx context.Context, namespace, name string, config cmapi.IssuerConfig) error {
	client := c.CertManager.CertmanagerV1().Issuers(namespace)
	_, err := client.Create(ctx, &cmapi.Issuer{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: cmapi.IssuerSpec{IssuerConfig: config},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("make issuer %s: %w", name, err)
	}
	return eventually(ctx, "issuer "+name, func(ctx context.Context) error {
		issuer, err := client.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range issuer.Status.Conditions {
			if condition.Type == cmapi.IssuerConditionReady && condition.Status == cmmeta.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("it is not ready: %v", issuer.Status.Conditions)
	})
}

// ACMEIssuer makes an issuer of the cluster's ACME server, which solves challenges in the zone [Zone], and waits until it is ready.
func (c *Cluster) ACMEIssuer(ctx context.Context, namespace, name string) error {
	ca, err := os.ReadFile(c.pki.crt("ca"))
	if err != nil {
		return fmt.Errorf("read the CA: %w", err)
	}
	return c.Issuer(ctx, namespace, name, cmapi.IssuerConfig{ACME: &cmacme.ACMEIssuer{
		Server:     "https://localhost:14000/dir",
		CABundle:   ca,
		PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: name}},
		Solvers: []cmacme.ACMEChallengeSolver{{
			DNS01: &cmacme.ACMEChallengeSolverDNS01{RFC2136: &cmacme.ACMEIssuerDNS01ProviderRFC2136{Nameserver: nameserver}},
		}},
	}})
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
