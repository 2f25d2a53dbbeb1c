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
	"os"
	"path/filepath"
	"time"

	apiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	cmclient "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned"
	typed "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned/typed/certmanager/v1"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/clientcmd"
)

// An api is the API server and cert-manager alone.
type api struct {
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
	a := &api{requests: client.CertmanagerV1().CertificateRequests(namespace), csr: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})}
	return a, a.issue(ctx) // The first one opens the connection.
}

// issue has one request signed, like one of a pod: create, watch that object, done, delete.
func (a *api) issue(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cr, err := a.requests.Create(ctx, &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: "floor-", OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "floor", UID: "floor"}},
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
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, cr.Name).String(), ResourceVersion: cr.ResourceVersion,
	})
	if err != nil {
		return err
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if now, ok := e.Object.(*cmapi.CertificateRequest); ok && apiutil.CertificateRequestReadyReason(now) == cmapi.CertificateRequestReasonIssued {
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

// systemCalls is how long one volume takes on one core when nothing but the needed calls are made: key and signing request, tmpfs,
// three files, bind mount, and all of it taken away again.
func systemCalls(dir string) (time.Duration, error) {
	const rounds = 1000
	begin := time.Now()
	for range rounds {
		if _, err := newCSR(); err != nil {
			return 0, err
		}
		v := bareVolume{filepath.Join(dir, "state"), filepath.Join(dir, "target")}
		if err := errors.Join(v.publish(), v.unpublish()); err != nil {
			return 0, fmt.Errorf("system-call floor: %w", err)
		}
	}
	return time.Since(begin) / rounds, nil
}

// bareUnpublish is the median time of taking a volume away by system calls alone, many at once.
func (b *bench) bareUnpublish(dir string) (time.Duration, error) {
	volume := func(i int) bareVolume {
		return bareVolume{filepath.Join(dir, fmt.Sprint("state-", i)), filepath.Join(dir, fmt.Sprint("target-", i))}
	}
	if _, err := b.each(func(i int) error { return volume(i).publish() }); err != nil {
		return 0, fmt.Errorf("system-call floor: %w", err)
	}
	took, err := b.each(func(i int) error { return volume(i).unpublish() })
	return median(took), err
}

// A bareVolume is a volume made by system calls alone.
type bareVolume struct{ state, target string }

func (v bareVolume) publish() error {
	state, target := v.state, v.target
	if err := errors.Join(os.Mkdir(state, 0o700), os.Mkdir(target, 0o700)); err != nil {
		return err
	}
	if err := unix.Mount("bench", state, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=1m"); err != nil {
		return err
	}
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
		if err := os.WriteFile(filepath.Join(state, name), make([]byte, 1024), 0o400); err != nil {
			return err
		}
	}
	if err := unix.Mount(state, target, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
}

func (v bareVolume) unpublish() error {
	return errors.Join(unix.Unmount(v.target, unix.MNT_DETACH), unix.Unmount(v.state, unix.MNT_DETACH), os.Remove(v.target), os.Remove(v.state))
}
