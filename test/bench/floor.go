package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	apiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	cmclient "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned"
	typed "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned/typed/certmanager/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// An api is the API server and cert-manager alone.
type api struct {
	config   *rest.Config
	certs    typed.CertmanagerV1Interface
	requests typed.CertificateRequestInterface
	csr      []byte
}

func newAPI(ctx context.Context, kubeconfig string) (*api, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	config.QPS = -1
	client, err := cmclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	csr, err := newCSR()
	if err != nil {
		return nil, err
	}
	certs := client.CertmanagerV1()
	a := &api{config: config, certs: certs, requests: certs.CertificateRequests(namespace)}
	a.csr = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})
	return a, a.issue(ctx) // The first one opens the connection.
}

// issue has one request signed, like one of a pod: create, watch that object, done, delete.
func (a *api) issue(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cr, err := a.requests.Create(ctx, &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName:    "floor-",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "floor", UID: "floor"}},
		},
		Spec: cmapi.CertificateRequestSpec{
			Request: a.csr, IssuerRef: cmmeta.IssuerReference{Name: "ca", Kind: "Issuer", Group: "cert-manager.io"},
			Duration: &metav1.Duration{Duration: 24 * time.Hour},
			Usages:   []cmapi.KeyUsage{cmapi.UsageDigitalSignature, cmapi.UsageKeyEncipherment},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("floor: %w", err)
	}
	if err := a.wait(ctx, cr); err != nil {
		return fmt.Errorf("floor: %w", err)
	}
	return a.requests.Delete(ctx, cr.Name, metav1.DeleteOptions{})
}

func (a *api) wait(ctx context.Context, cr *cmapi.CertificateRequest) error {
	w, err := a.requests.Watch(ctx, metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector(metav1.ObjectNameField, cr.Name).String(),
		ResourceVersion: cr.ResourceVersion,
	})
	if err != nil {
		return err
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		now, ok := e.Object.(*cmapi.CertificateRequest)
		if ok && apiutil.CertificateRequestReadyReason(now) == cmapi.CertificateRequestReasonIssued {
			return nil
		}
	}
	return errors.New("the watch ended before the request was signed")
}

// drain waits until no request is left, for some seconds at most: not every driver deletes its own.
func (a *api) drain(ctx context.Context) error {
	for range 50 {
		list, err := a.requests.List(ctx, metav1.ListOptions{Limit: 1})
		if err != nil || len(list.Items) == 0 {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func newCSR() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"web.bench.svc"}}, key)
}
