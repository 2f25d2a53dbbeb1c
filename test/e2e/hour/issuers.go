package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	apiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	cminformers "github.com/cert-manager/cert-manager/pkg/client/informers/externalversions"
	"github.com/cert-manager/cert-manager/pkg/util/pki"
	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/mayfly-csi/mayfly/test/cluster"
)

// The issuers: one of cert-manager's, and two that the program plays.
const (
	healthy = "healthy"
	slow    = "slow"   // Takes 5 to 45 seconds, of volumes whose certificates last 2 minutes and more.
	silent  = "silent" // Says nothing for 9 of each 16 minutes, from the sixth on.
)

const (
	untilSilent = 6 * time.Minute
	silence     = 9 * time.Minute
	cycle       = 16 * time.Minute
)

// issuers plays two of the issuers, and tells the ledger of each request and Event.
type issuers struct {
	*cluster.Cluster
	group *errgroup.Group
	seen  *ledger
	crt   *x509.Certificate
	key   crypto.Signer
	began atomic.Pointer[time.Time]
}

func newIssuers(c *cluster.Cluster, group *errgroup.Group, seen *ledger) (*issuers, error) {
	crtPEM, keyPEM, err := cluster.NewCA()
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	crt, err := pki.DecodeX509CertificateBytes(crtPEM)
	if err != nil {
		return nil, fmt.Errorf("read the CA: %w", err)
	}
	key, err := pki.DecodePrivateKeyBytes(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("read the CA's key: %w", err)
	}
	return &issuers{Cluster: c, group: group, seen: seen, crt: crt, key: key}, nil
}

// run watches requests and Events until ctx ends. It returns once both watches have begun.
func (i *issuers) run(ctx context.Context) error {
	requests := cminformers.NewSharedInformerFactoryWithOptions(i.CertManager, 0, cminformers.WithNamespace(namespace))
	_, err := requests.Certmanager().V1().CertificateRequests().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { i.changed(ctx, o) },
		UpdateFunc: func(_, o any) { i.changed(ctx, o) },
	})
	events := informers.NewSharedInformerFactoryWithOptions(i.Client, 0, informers.WithNamespace(namespace))
	_, failed := events.Core().V1().Events().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { i.seen.event(o) },
		UpdateFunc: func(_, o any) { i.seen.event(o) },
	})
	if err := errors.Join(err, failed); err != nil {
		return fmt.Errorf("watch requests and Events: %w", err)
	}
	requests.Start(ctx.Done())
	events.Start(ctx.Done())
	requests.WaitForCacheSync(ctx.Done())
	events.WaitForCacheSync(ctx.Done())
	return ctx.Err()
}

// begin says that all pods run: the silences count from now on.
func (i *issuers) begin(t time.Time) { i.began.Store(&t) }

// speaks says whether the issuer that falls silent signs at a time.
func (i *issuers) speaks(t time.Time) bool {
	began := i.began.Load()
	if began == nil || t.Sub(*began) < untilSilent {
		return true
	}
	return (t.Sub(*began)-untilSilent)%cycle >= silence
}

// changed notes what a request is like, and signs the new one of an issuer that the program plays.
func (i *issuers) changed(ctx context.Context, o any) {
	cr, ok := o.(*cmapi.CertificateRequest)
	if !ok {
		return
	}
	first := i.seen.request(cr)
	if !first || cr.Spec.IssuerRef.Group != group {
		return
	}
	i.group.Go(func() error {
		if err := i.hesitate(ctx, cr.Spec.IssuerRef.Name); err != nil {
			return nil //nolint:nilerr // The run is over.
		}
		if err := i.sign(ctx, cr); err != nil && ctx.Err() == nil {
			return fmt.Errorf("sign request %s: %w", cr.Name, err)
		}
		return nil
	})
}

// hesitate waits until an issuer is ready to sign.
func (i *issuers) hesitate(ctx context.Context, issuer string) error {
	if issuer == slow {
		return sleep(ctx, 5*time.Second+rand.N(40*time.Second))
	}
	for !i.speaks(time.Now()) {
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
	return nil
}

// sign signs a request once it is approved, which cert-manager does. Nobody waits for one that is gone.
func (i *issuers) sign(ctx context.Context, cr *cmapi.CertificateRequest) error {
	requests := i.CertManager.CertmanagerV1().CertificateRequests(namespace)
	for {
		now, err := requests.Get(ctx, cr.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if !apiutil.CertificateRequestIsApproved(now) {
			if err := sleep(ctx, 100*time.Millisecond); err != nil {
				return err
			}
			continue
		}
		if err := i.certify(now); err != nil {
			return err
		}
		_, err = requests.UpdateStatus(ctx, now, metav1.UpdateOptions{})
		if !apierrors.IsConflict(err) {
			return ignoreGone(err)
		}
	}
}

// certify puts a certificate into the request.
func (i *issuers) certify(cr *cmapi.CertificateRequest) error {
	template, err := pki.CertificateTemplateFromCertificateRequest(cr)
	if err != nil {
		return err
	}
	signed, err := pki.SignCSRTemplate([]*x509.Certificate{i.crt}, i.key, template)
	if err != nil {
		return err
	}
	cr.Status.Certificate, cr.Status.CA = signed.ChainPEM, signed.CAPEM
	apiutil.SetCertificateRequestCondition(cr, cmapi.CertificateRequestConditionReady, cmmeta.ConditionTrue, cmapi.CertificateRequestReasonIssued, "signed")
	return nil
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
