package e2e

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	apiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	cminformers "github.com/cert-manager/cert-manager/pkg/client/informers/externalversions"
	"github.com/cert-manager/cert-manager/pkg/util/pki"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/mayfly-csi/mayfly/test/cluster"
)

// The issuers for which signers sign, and what a volume names them by.
const (
	silentIssuer = "silent" // Does not answer while it is silent.
	slowIssuer   = "slow"   // Answers after slowness.
	otherIssuer  = "other"  // Answers at once.

	slowness = 5 * time.Second
)

// ofSigner returns the attributes of a volume of such an issuer.
func ofSigner(issuer string, attributes ...string) []string {
	return append([]string{"issuer-name=" + issuer, "issuer-kind=Signer", "issuer-group=stories.test"}, attributes...)
}

// A signers signs the requests of a namespace for issuers of another group than cert-manager's, once they are approved.
type signers struct {
	*story
	ca   tls.Certificate
	ctx  context.Context // Ends before the story's namespace is deleted.
	work sync.WaitGroup

	mu         sync.Mutex
	seen       map[types.UID]bool
	silent     bool
	unanswered []*cmapi.CertificateRequest // Of the silent issuer.
	signed     map[string]int              // By the names of issuers.
}

// signers starts to sign, until the end of the story.
func (s *story) signers() *signers {
	s.Helper()
	crt, key, err := cluster.NewCA()
	if err != nil {
		s.Fatal(err)
	}
	all := &signers{story: s, seen: map[types.UID]bool{}, signed: map[string]int{}}
	if all.ca, err = tls.X509KeyPair(crt, key); err != nil {
		s.Fatal(err)
	}
	s.defineSigners()
	var cancel context.CancelFunc
	all.ctx, cancel = context.WithCancel(context.WithoutCancel(s.Context()))
	// An informer goes on where a watch would end: the API server closes those of whom it finds slow.
	factory := cminformers.NewSharedInformerFactoryWithOptions(shared.CertManager, 0, cminformers.WithNamespace(s.namespace))
	take := func(o any) {
		if cr, ok := o.(*cmapi.CertificateRequest); ok {
			all.take(cr)
		}
	}
	_, err = factory.Certmanager().V1().CertificateRequests().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: take, UpdateFunc: func(_, o any) { take(o) },
	})
	s.Cleanup(func() {
		cancel()
		factory.Shutdown()
		all.work.Wait()
	})
	if err != nil {
		s.Fatal(err)
	}
	factory.Start(all.ctx.Done())
	factory.WaitForCacheSync(all.ctx.Done())
	return all
}

// defineSigners makes the kind of the issuers, and removes it at the end of the story.
func (s *story) defineSigners() {
	s.Helper()
	definition := filepath.Join("testdata", "signers.yaml")
	s.Cleanup(func() {
		_, err := shared.Kubectl(context.Background(), "delete", "--ignore-not-found", "--filename", definition)
		if err != nil {
			s.Error(err)
		}
	})
	for _, args := range [][]string{{"apply"}, {"wait", "--for=condition=Established", "--timeout=1m"}} {
		if _, err := shared.Kubectl(s.Context(), append(args, "--filename", definition)...); err != nil {
			s.Fatal(err)
		}
	}
}

// take answers a request that is approved, in its time.
func (s *signers) take(cr *cmapi.CertificateRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cr.Spec.IssuerRef.Group != "stories.test" || !apiutil.CertificateRequestIsApproved(cr) || s.seen[cr.UID] {
		return
	}
	s.seen[cr.UID] = true
	switch name := cr.Spec.IssuerRef.Name; {
	case name == silentIssuer && s.silent:
		s.unanswered = append(s.unanswered, cr)
	case name == slowIssuer:
		s.answer(cr, slowness)
	default:
		s.answer(cr, 0)
	}
}

// answer signs a request after a delay, unless the story has ended.
func (s *signers) answer(cr *cmapi.CertificateRequest, delay time.Duration) {
	s.work.Go(func() {
		select {
		case <-time.After(delay):
		case <-s.ctx.Done():
			return
		}
		// A pod's request is deleted with its pod.
		if err := s.sign(cr); err != nil && !apierrors.IsNotFound(err) && s.ctx.Err() == nil {
			s.Errorf("sign request %s: %v", cr.Name, err)
		}
	})
}

// sign writes into the status what the request asks for.
func (s *signers) sign(cr *cmapi.CertificateRequest) error {
	template, err := pki.CertificateTemplateFromCertificateRequest(cr)
	if err != nil {
		return err
	}
	key, ok := s.ca.PrivateKey.(crypto.Signer)
	if !ok {
		return fmt.Errorf("the CA's key is a %T", s.ca.PrivateKey)
	}
	bundle, err := pki.SignCSRTemplate([]*x509.Certificate{s.ca.Leaf}, key, template)
	if err != nil {
		return err
	}
	cr = cr.DeepCopy()
	cr.Status.Certificate, cr.Status.CA = bundle.ChainPEM, bundle.CAPEM
	apiutil.SetCertificateRequestCondition(cr, cmapi.CertificateRequestConditionReady, cmmeta.ConditionTrue,
		cmapi.CertificateRequestReasonIssued, "signed")
	requests := shared.CertManager.CertmanagerV1().CertificateRequests(cr.Namespace)
	_, err = requests.UpdateStatus(s.ctx, cr, metav1.UpdateOptions{})
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.signed[cr.Spec.IssuerRef.Name]++
	}
	return err
}

// fallSilent makes the silent issuer silent from now on.
func (s *signers) fallSilent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = true
}

// speak makes it answer again, what it was asked meanwhile first.
func (s *signers) speak() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = false
	for _, cr := range s.unanswered {
		s.answer(cr, 0)
	}
	s.unanswered = nil
}

// waiting returns how many requests the silent issuer has not answered.
func (s *signers) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.unanswered)
}

// count returns how many requests were signed for an issuer.
func (s *signers) count(issuer string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.signed[issuer]
}
