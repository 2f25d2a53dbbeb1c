package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/test/cluster"
)

// bare makes as many requests at once as pods with a volume do, without pods and without a driver, and returns how long each took until it was
// signed: what a volume can't be faster than where everything shares a machine. It then removes them.
func bare(ctx context.Context, c *cluster.Cluster, n int) ([]time.Duration, error) {
	client := c.CertManager.CertmanagerV1().CertificateRequests(namespace)
	took := make([]time.Duration, n)
	var group errgroup.Group
	for i := range n {
		group.Go(func() error {
			begin := time.Now()
			cr, err := request(name(i))
			if err != nil {
				return err
			}
			created, err := client.Create(ctx, cr, metav1.CreateOptions{})
			if err != nil {
				return err
			}
			w, err := client.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + cr.Name, ResourceVersion: created.ResourceVersion})
			if err != nil {
				return err
			}
			defer w.Stop()
			for event := range w.ResultChan() {
				if cr, ok := event.Object.(*cmapi.CertificateRequest); ok && len(cr.Status.Certificate) > 0 {
					took[i] = time.Since(begin)
					return client.Delete(ctx, cr.Name, metav1.DeleteOptions{})
				}
			}
			return fmt.Errorf("request %s was not signed", cr.Name)
		})
	}
	return took, group.Wait()
}

func request(name string) (*cmapi.CertificateRequest, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name + ".test"}}, key)
	if err != nil {
		return nil, err
	}
	return &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: cmapi.CertificateRequestSpec{
			Request:   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}),
			IssuerRef: cmmeta.IssuerReference{Name: "ca", Kind: "Issuer", Group: "cert-manager.io"},
		},
	}, nil
}
