package driver_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// A hierarchy is a root and an intermediate, which signs.
type hierarchy struct {
	root, intermediate       *x509.Certificate
	rootKey, intermediateKey *ecdsa.PrivateKey
	sent                     *x509.Certificate // In the place of the intermediate; nil: that.
}

func newHierarchy(t *testing.T, rootEnds, intermediateEnds time.Time) *hierarchy {
	t.Helper()
	h := &hierarchy{}
	h.root, h.rootKey = certify(t, authority("root", rootEnds), nil, nil)
	h.intermediate, h.intermediateKey = certify(t, authority("intermediate", intermediateEnds), h.root, h.rootKey)
	return h
}

func authority(name string, end time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: end, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
}

// certify makes a certificate with a new key; without a parent it signs itself.
func certify(t *testing.T, template, parent *x509.Certificate, signer crypto.Signer) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if parent == nil {
		parent, signer = template, key
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, key
}

// signs is an answer by the intermediate, with the lifetime that is asked for, changed by edit.
func (h *hierarchy) signs(edit func(*x509.Certificate)) answer {
	return func(_ context.Context, req signer.Request, _ signer.Signer) (signer.Issued, error) {
		csr, err := x509.ParseCertificateRequest(req.CSR)
		if err != nil {
			return signer.Issued{}, err
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: csr.DNSNames, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(req.Duration),
		}
		if edit != nil {
			edit(template)
		}
		der, err := x509.CreateCertificate(rand.Reader, template, h.intermediate, csr.PublicKey, h.intermediateKey)
		text := append(pemOf(der), pemOf(cmp.Or(h.sent, h.intermediate).Raw)...)
		return signer.Issued{Chain: text, CA: pemOf(h.root.Raw)}, err
	}
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// age makes the volume's renewal due. The driver is stopped for it.
func (n *node) age(v kubelet.Volume) {
	n.t.Helper()
	if err := n.stop(); err != nil {
		n.t.Fatal(err)
	}
	r := n.record(v)
	r.RenewAt = time.Now()
	if err := store.WriteRecord(files.Dir(n.inState(v, "")), r); err != nil {
		n.t.Fatal(err)
	}
	n.start()
}

// An intermediate that ends before its leaf is the end of both: for renewal, health and metrics. Answers that bring
// no later end come at longer intervals.
func TestAnIntermediateThatEndsFirst(t *testing.T) {
	registry := prometheus.NewRegistry()
	events := make(chan string, 10)
	n := newNode(t, func(c *driver.Config) {
		c.Metrics = registry
		c.Events = eventFunc(func(message string) { events <- message })
		registry = prometheus.NewRegistry() // Of the next process.
	})
	end := time.Now().Add(12 * time.Second).Truncate(time.Second)
	h := newHierarchy(t, end.AddDate(10, 0, 0), end)
	n.signer.from(h.signs(nil))
	v := web("csi.mayfly.dev/duration=2160h")
	target := n.publish(v)
	first := pair(t, target)
	if r := n.record(v); r.RenewAt.After(end) || !r.EndsAt.Equal(end) || r.Stalled != 0 {
		t.Errorf("the record: %+v, and the chain ends at %s", r, end)
	}
	if health, err := n.Health(t.Context(), n.driver, v); err != nil || len(health) > 0 {
		t.Errorf("health %v (%v)", health, err)
	}

	until(t, "the renewal", func() bool { return !pair(t, target).Equal(first) })
	until(t, "the record", func() bool { return n.record(v).Stalled == 1 })
	r := n.record(v)
	if !r.RenewAt.Equal(end) { // A minute at least, but for the end itself: there may be a better answer then.
		t.Errorf("after an answer that ends no later the next try is at %s, the chain ends at %s", r.RenewAt, end)
	}
	if message := <-events; !strings.Contains(message, "IssuerEndsSoon: volume tls: the new certificate is valid no longer than the one before: CN=intermediate ends at "+end.UTC().Format(time.RFC3339)) {
		t.Error(message)
	}

	until(t, "the end", func() bool { return time.Now().After(end) })
	second := pair(t, target)
	n.health(v, csi.VolumeHealthErrorType_INACCESSIBLE, "CertificateNotValid", "to "+end.UTC().Format(time.RFC3339))
	fresh := web("csi.mayfly.dev/duration=2160h")
	fresh.UID = "3b2f6a5e-0001-4c5e-9d3e-000000000009"
	n.fails(fresh, "the certificate of its issuer, CN=intermediate, expired at")
	n.unpublish(fresh)

	until(t, "what no peer accepts is refused", func() bool { return n.record(v).Failure != nil })
	if asked := len(slices.DeleteFunc(n.signer.asked(), func(r signer.Request) bool { return r.Attempt.Pod.UID != v.UID })); asked != 3 {
		t.Errorf("%d requests", asked)
	}
	if !pair(t, target).Equal(second) {
		t.Error("a pair that no peer accepts is in force")
	}

	next := newHierarchy(t, end.AddDate(10, 0, 0), end.AddDate(1, 0, 0))
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n.rest(v)
	n.signer.from(next.signs(nil))
	n.start()
	until(t, "the issuer is renewed", func() bool { return !pair(t, target).Equal(second) })
	until(t, "the record is that of a good pair", func() bool { return n.record(v).Stalled == 0 && n.record(v).Failure == nil })
	n.unpublish(v)
	n.empty()
}

// The CA is not beside the pair, and its end is known after a restart all the same.
func TestARootThatEndsFirst(t *testing.T) {
	registries := make(chan *prometheus.Registry, 2)
	n := newNode(t, func(c *driver.Config) {
		registry := prometheus.NewRegistry()
		c.Metrics = registry
		registries <- registry
	})
	end := time.Now().Add(time.Hour).Truncate(time.Second)
	h := newHierarchy(t, end, end.AddDate(1, 0, 0))
	n.signer.from(h.signs(nil))
	v := web("csi.mayfly.dev/duration=2160h")
	n.publish(v)
	for _, when := range []string{"before", "after"} {
		if got := gauge(t, <-registries, "mayfly_first_expiry_timestamp_seconds"); got != float64(end.Unix()) {
			t.Errorf("%s the restart: the first expiry is %v, want %d", when, got, end.Unix())
		}
		if when == "before" {
			n.restart()
		}
	}
	n.unpublish(v)
	n.empty()
}

func gauge(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

// A renewal that no peer would accept leaves the pair that was there.
func TestARenewalThatPeersWouldRefuse(t *testing.T) {
	t.Parallel()
	now := time.Now()
	good := newHierarchy(t, now.AddDate(10, 0, 0), now.AddDate(1, 0, 0))
	over := newHierarchy(t, now.AddDate(10, 0, 0), now.Add(-time.Minute))
	stranger := newHierarchy(t, now.AddDate(10, 0, 0), now.AddDate(1, 0, 0))
	stranger.sent = good.intermediate
	damaged := func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		issued, err := good.signs(nil)(ctx, req, ca)
		i := bytes.LastIndex(issued.Chain, []byte("-----END"))
		return signer.Issued{Chain: append(issued.Chain[:i:i], "----END CERTIFICATE-----\n"...), CA: issued.CA}, err
	}
	for name, row := range map[string]struct {
		answer answer
		want   string
	}{
		"an intermediate that is over":  {over.signs(nil), "CN=intermediate expired at"},
		"an intermediate of another CA": {stranger.signs(nil), "the certificate chain is broken: the issuer of the certificate is missing, and CN=intermediate did not sign it"},
		"a damaged intermediate":        {damaged, "PEM block 2: its END line is missing or damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, nil)
			n.signer.from(good.signs(nil))
			v := web()
			target := n.publish(v)
			before := pair(t, target)
			n.signer.from(row.answer)
			n.age(v)
			until(t, "the renewal fails", func() bool { return n.record(v).Failure != nil })
			if r := n.record(v); !strings.Contains(r.Failure.Reason, row.want) || r.Failure.Kind != signer.Failed.String() || !pair(t, target).Equal(before) {
				t.Errorf("%+v", r.Failure)
			}
			n.unpublish(v)
			n.empty()
		})
	}
}

// What the issuer left out, or sent along that can't be parsed, is told once for a volume: not at its next renewal,
// nor after a restart.
func TestWarningsAreToldOnce(t *testing.T) {
	var mu sync.Mutex
	var events []string
	told := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(events)
	}
	n := newNode(t, func(c *driver.Config) {
		c.Events = eventFunc(func(message string) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, message)
		})
	})
	h := newHierarchy(t, time.Now().AddDate(10, 0, 0), time.Now().AddDate(1, 0, 0))
	old, _ := certify(t, authority("Old Corp Root", time.Now().AddDate(1, 0, 0)), nil, nil)
	sign := h.signs(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	n.signer.from(func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		issued, err := sign(ctx, req, ca)
		issued.CA = append(issued.CA, pemOf(negativeSerial(t, old))...)
		return issued, err
	})
	v := web()
	target := n.publish(v)
	until(t, "two events", func() bool { return len(told()) == 2 })
	for range 2 {
		before := pair(t, target)
		n.age(v)
		until(t, "a renewal", func() bool { return !pair(t, target).Equal(before) })
		until(t, "its end", func() bool { return n.record(v).Attempt == "" })
	}
	want := []string{
		`shop/web-0 MissingUsage: volume tls: the certificate lacks the usage "client auth" that was asked for`,
		"shop/web-0 UnusualChain: volume tls: CN=Old Corp Root can't be parsed (x509: negative serial number): it is passed on as it is, unchecked",
	}
	got := told()
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
	if ca := read(t, target, "ca.crt"); !bytes.HasSuffix(ca, pemOf(negativeSerial(t, old))) {
		t.Errorf("it is not passed on:\n%s", ca)
	}
	if !strings.Contains(n.log.String(), "CN=Old Corp Root can't be parsed") {
		t.Error("the log does not name it")
	}
	n.unpublish(v)
	n.empty()
}

// negativeSerial changes a certificate so that crypto/x509 does not parse it.
func negativeSerial(t *testing.T, c *x509.Certificate) []byte {
	t.Helper()
	number := c.SerialNumber.Bytes()
	i := bytes.Index(c.Raw, append([]byte{asn1.TagInteger, byte(len(number))}, number...))
	if i < 0 {
		t.Fatal("no serial number")
	}
	der := bytes.Clone(c.Raw)
	der[i+2] |= 0x80
	return der
}

// A certificate that can't be parsed does not spoil its source: it is passed on, in all layouts, and named to the pod.
func TestASourceWithACertificateThatCantBeParsed(t *testing.T) {
	n := newTrusting(t, nil)
	a := root(t, "a", 0)
	old := pemOf(negativeSerial(t, root(t, "Old Corp Root", 0)))
	n.write(append(pemOf(a.Raw), old...))
	v := web(trusts+"file:corp", "csi.mayfly.dev/layout=pem,bundle,pkcs12,jks")
	target := n.publish(v)
	if ca := read(t, target, "ca.crt"); !bytes.Equal(ca, append(pemOf(a.Raw), old...)) {
		t.Errorf("ca.crt:\n%s", ca)
	}
	until(t, "the pod is told", func() bool { return len(n.events()) == 1 })
	want := "shop/web-0 TrustBundleUnchecked: volume tls: file:corp: CN=Old Corp Root can't be parsed (x509: negative serial number): it is passed on as it is, unchecked"
	if got := n.events()[0]; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if !strings.Contains(n.log.String(), `level=WARN msg="CA certificates are passed on unchecked"`) {
		t.Error("the log does not name it")
	}
	n.restart()
	n.publish(v)
	b := root(t, "b", 0)
	n.have(b)
	n.shows(target, b)
	if got := n.events(); len(got) != 1 {
		t.Errorf("%d events: %s", len(got), fmt.Sprint(got))
	}
	n.unpublish(v)
	n.empty()
}
