// Package signertest is the suite that every backend of package signer must pass.
package signertest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/signer"
)

// A Backend is what the suite is run against: a signer that signs what it is asked.
type Backend struct {
	Signer signer.Signer
	Issuer signer.Issuer
	// Pod is the identity of a pod that exists where the backend looks for pods.
	Pod func(t *testing.T) signer.Pod
}

// Run runs the suite.
func Run(t *testing.T, b Backend) {
	t.Run("a chain for our key with what was asked for", b.issues)
	t.Run("an attempt that is repeated is the same attempt", b.repeats)
	t.Run("attempts at the same time do not disturb each other", b.concurrent)
	t.Run("a request that is no request", b.garbage)
	t.Run("a context that is over", b.over)
	t.Run("what is forgotten may be forgotten again", b.forgets)
}

// request returns a good request with a new key.
func (b Backend) request(t *testing.T) (signer.Request, crypto.Signer) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		DNSNames:    []string{"web.example"},
		IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)},
		URIs:        []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/web"}},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return signer.Request{
		Attempt:  signer.Attempt{ID: strings.ToLower(rand.Text()), Pod: b.Pod(t)},
		Issuer:   b.Issuer,
		CSR:      csr,
		Duration: time.Hour,
		Usages:   []signer.Usage{signer.DigitalSignature, signer.ServerAuth, signer.ClientAuth},
	}, key
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// leaf returns the first certificate of an answer.
func leaf(t *testing.T, issued signer.Issued) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(issued.Chain)
	if block == nil {
		t.Fatalf("no PEM: %q", issued.Chain)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (b Backend) issues(t *testing.T) {
	req, key := b.request(t)
	before := time.Now()
	issued, err := b.Signer.Sign(patient(t), req)
	if err != nil {
		t.Fatal(err)
	}
	c := leaf(t, issued)
	if !key.Public().(*ecdsa.PublicKey).Equal(c.PublicKey) {
		t.Error("another key")
	}
	if len(c.DNSNames) != 1 || len(c.IPAddresses) != 1 || len(c.URIs) != 1 ||
		c.URIs[0].String() != "spiffe://example.org/web" {
		t.Errorf("names: %v %v %v", c.DNSNames, c.IPAddresses, c.URIs)
	}
	if d := c.NotAfter.Sub(before); d < 59*time.Minute || d > 61*time.Minute {
		t.Errorf("valid for %s, asked for 1h", d)
	}
	if ahead := time.Until(c.NotBefore); ahead > 0 || ahead < -6*time.Minute {
		t.Errorf("begins %s from now: a signer backdates by at most 5 minutes", ahead)
	}
	if c.KeyUsage&x509.KeyUsageDigitalSignature == 0 || len(c.ExtKeyUsage) != 2 || c.IsCA {
		t.Errorf("usages %v %v, CA %v", c.KeyUsage, c.ExtKeyUsage, c.IsCA)
	}
	verify(t, c, issued)
}

// verify checks the chain against the CA that came with it, where one came.
func verify(t *testing.T, c *x509.Certificate, issued signer.Issued) {
	t.Helper()
	if len(issued.CA) == 0 {
		return
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(issued.CA)
	if _, err := c.Verify(x509.VerifyOptions{Roots: roots}); err != nil {
		t.Errorf("verify against the CA that came along: %v", err)
	}
}

func (b Backend) repeats(t *testing.T) {
	req, _ := b.request(t)
	first, err := b.Signer.Sign(patient(t), req)
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.Signer.Sign(patient(t), req)
	if err != nil {
		t.Fatal(err)
	}
	if _, keeps := b.Signer.(signer.Forgetter); keeps && !bytes.Equal(first.Chain, second.Chain) {
		t.Error("a signer that keeps attempts signed one twice")
	}
}

func (b Backend) concurrent(t *testing.T) {
	var group sync.WaitGroup
	for range 8 {
		req, key := b.request(t)
		group.Go(func() {
			issued, err := b.Signer.Sign(patient(t), req)
			if err != nil {
				t.Error(err)
				return
			}
			if block, _ := pem.Decode(issued.Chain); block != nil {
				c, err := x509.ParseCertificate(block.Bytes)
				if err != nil || !key.Public().(*ecdsa.PublicKey).Equal(c.PublicKey) {
					t.Errorf("another's certificate: %v", err)
				}
			}
		})
	}
	group.Wait()
}

func (b Backend) garbage(t *testing.T) {
	req, _ := b.request(t)
	req.CSR = []byte("not a request")
	_, err := b.Signer.Sign(patient(t), req)
	if kind := b.kind(t, err); !kind.Ends() {
		t.Errorf("%s, want an error that ends the attempt: %v", kind, err)
	}
}

func (b Backend) over(t *testing.T) {
	req, _ := b.request(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.Signer.Sign(ctx, req)
	if kind := b.kind(t, err); kind.Ends() {
		t.Errorf("%s ends the attempt, though nobody decided on it: %v", kind, err)
	}
}

// kind demands that an error is one of the contract.
func (b Backend) kind(t *testing.T, err error) signer.Kind {
	t.Helper()
	var e *signer.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v (%T) is not an error of the contract", err, err)
	}
	if e.Reason == "" {
		t.Error("no reason")
	}
	return e.Kind
}

func (b Backend) forgets(t *testing.T) {
	forgetter, ok := b.Signer.(signer.Forgetter)
	if !ok {
		t.Log("it keeps nothing")
		return
	}
	req, _ := b.request(t)
	if _, err := b.Signer.Sign(patient(t), req); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := forgetter.Forget(patient(t), req.Attempt); err != nil {
			t.Errorf("Forget: %v", err)
		}
	}
}
