package driver_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/trust"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/chain"
	"github.com/mayfly-csi/mayfly/signer/local"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// A trusting node has a driver that knows a file of CA certificates, "corp".
type trusting struct {
	*node
	corp string // Its path.

	mu   sync.Mutex
	told []string // The events of pods.
}

func newTrusting(t *testing.T, edit func(*driver.Config)) *trusting {
	t.Helper()
	dir := t.TempDir()
	n := &trusting{corp: filepath.Join(dir, "corp.pem")}
	n.node = newNode(t, func(c *driver.Config) {
		w, err := trust.New(trust.Config{Files: map[string]string{"corp": n.corp}, Log: c.Log})
		if err != nil {
			t.Fatal(err)
		}
		c.Trust, c.Defaults.TrustFiles, c.Defaults.TrustDomain = w, []string{"corp"}, "example.org"
		c.Events = eventFunc(func(message string) {
			if strings.Contains(message, " CertificateExpired: ") || strings.Contains(message, " CertificateRenewed: ") {
				return // Certificates of seconds end on a machine that is busy.
			}
			n.mu.Lock()
			defer n.mu.Unlock()
			n.told = append(n.told, message)
		})
		if edit != nil {
			edit(c)
		}
	})
	return n
}

// have puts CA certificates in the file, all at once.
func (n *trusting) have(cas ...*x509.Certificate) {
	n.t.Helper()
	n.write(chain.Encode(cas...))
}

func (n *trusting) write(text []byte) {
	n.t.Helper()
	if err := os.WriteFile(n.corp+".new", text, 0o600); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Rename(n.corp+".new", n.corp); err != nil {
		n.t.Fatal(err)
	}
}

func (n *trusting) events() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.told)
}

// issuer is the CA of the node's signer.
func (n *trusting) issuer() *x509.Certificate {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.Root, "ca", local.CertificateFile))
	if err != nil {
		n.t.Fatal(err)
	}
	return parse(n.t, text)[0]
}

func parse(t *testing.T, text []byte) (all []*x509.Certificate) {
	t.Helper()
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

// root is a CA certificate, of some size beyond the usual.
func root(t *testing.T, name string, more int) *x509.Certificate {
	t.Helper()
	return rootUntil(t, name, time.Now().AddDate(1, 0, 0), more)
}

// rootUntil is a root that ends then.
func rootUntil(t *testing.T, name string, end time.Time, more int) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now(), NotAfter: end,
		IsCA: true, BasicConstraintsValid: true,
	}
	if more > 0 {
		template.OCSPServer = []string{strings.Repeat("x", more)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// shows waits until the pod has these CA certificates, and demands that it always had its pair.
func (n *trusting) shows(target string, cas ...*x509.Certificate) {
	n.t.Helper()
	until(n.t, "the CA certificates are there", func() bool {
		pair(n.t, target)
		return bytes.Equal(read(n.t, target, "ca.crt"), chain.Encode(cas...))
	})
}

// read is a file of the generation that is in force.
func read(t *testing.T, target, name string) (text []byte) {
	t.Helper()
	err := kubelet.ReadSet(target, func(dir string) (err error) {
		text, err = os.ReadFile(filepath.Join(dir, name))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// has demands CA certificates, now.
func (n *trusting) has(target string, cas ...*x509.Certificate) {
	n.t.Helper()
	if got := read(n.t, target, "ca.crt"); !bytes.Equal(got, chain.Encode(cas...)) {
		n.t.Errorf("ca.crt has %d certificates, not the %d that it should", len(parse(n.t, got)), len(cas))
	}
}

const trusts = "csi.mayfly.dev/trust="

func TestCACertificatesArePushed(t *testing.T) {
	n := newTrusting(t, nil)
	a, b := root(t, "a", 0), root(t, "b", 0)
	n.have(a)
	v := web(trusts+"file:corp,issuer", "csi.mayfly.dev/layout=pem,bundle,pkcs12")
	target := n.publish(v)
	leaf := pair(t, target)
	n.has(target, a, n.issuer())
	n.have(b, a)
	n.shows(target, b, a, n.issuer())
	store, err := pkcs12.DecodeTrustStore(read(t, target, "truststore.p12"), "changeit")
	if err != nil || len(store) != 3 || !store[0].Equal(b) {
		t.Errorf("the truststore has %d certificates (%v)", len(store), err)
	}
	generation := func() string {
		link, err := os.Readlink(filepath.Join(target, "..data"))
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	before := generation()
	n.write(append(chain.Encode(b, a), "# a comment\n"...)) // Another text, the same set.
	n.have(b)
	n.shows(target, b, n.issuer())
	n.restart()
	n.publish(v)
	n.have(a)
	n.shows(target, a, n.issuer())
	if generation() == before || !pair(t, target).Equal(leaf) || len(n.signer.asked()) != 1 {
		t.Errorf("%d requests", len(n.signer.asked()))
	}
	n.unpublish(v)
	n.empty()
}

// A volume whose set does not change is not touched, whatever else happens.
func TestTheSameSetIsNotWrittenAgain(t *testing.T) {
	n := newTrusting(t, nil)
	a, b := root(t, "a", 0), root(t, "b", 0)
	n.have(a)
	one, other := web(trusts+"file:corp"), web()
	other.UID = "3b2f6a5e-0001-4c5e-9d3e-000000000002"
	first, second := n.publish(one), n.publish(other)
	link := func() string {
		to, err := os.Readlink(filepath.Join(second, "..data"))
		if err != nil {
			t.Fatal(err)
		}
		return to
	}
	before := link()
	n.have(b)
	n.shows(first, b)
	n.restart()
	n.have(a)
	n.shows(first, a)
	if link() != before {
		t.Error("the files were written again")
	}
}

// The signer has the volume's turn for as long as it likes.
func TestAPushDoesNotWaitForAnAttempt(t *testing.T) {
	n := newTrusting(t, nil)
	a, b := root(t, "a", 0), root(t, "b", 0)
	n.have(a)
	v := web(trusts+"file:corp", "csi.mayfly.dev/duration=5s")
	target := n.publish(v)
	ended := make(chan struct{}, 10)
	n.signer.from(func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		defer func() { ended <- struct{}{} }()
		return hang(ctx, req, ca)
	})
	until(t, "the renewal is under way", func() bool { return len(n.signer.asked()) == 2 })
	n.have(b)
	n.shows(target, b)
	if len(ended) > 0 {
		t.Error("the renewal ended before")
	}
	n.unpublish(v)
	n.empty()
}

func TestAPodDoesNotBeginWithoutItsCACertificates(t *testing.T) {
	n := newTrusting(t, nil)
	v := web(trusts + "issuer,file:corp")
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
	defer cancel()
	_, err := n.Publish(ctx, n.driver, v)
	if err == nil || kubelet.Final(err) || !strings.Contains(err.Error(), "trust source file:corp: file "+n.corp+" not found") {
		t.Errorf("%v", err)
	}
	if len(n.signer.asked()) != 0 {
		t.Error("a certificate was asked for")
	}
	ended := make(chan error, 1)
	go func() {
		_, err := n.Publish(context.Background(), n.driver, v)
		ended <- err
	}()
	n.write([]byte("garbage"))
	until(t, "the file is read", func() bool { return strings.Contains(n.log.String(), "there is no certificate in") })
	a := root(t, "a", 0)
	n.have(a)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	n.has(n.Target(v), n.issuer(), a)
	if got := n.events(); len(got) != 0 { // The kubelet tells of what its calls met.
		t.Errorf("%q", got)
	}
	n.unpublish(v)
	n.empty()
}

// A source that goes while the signer is at work was there: the pod begins with what it said.
func TestASourceThatGoesDuringTheFirstAttempt(t *testing.T) {
	n := newTrusting(t, nil)
	a := root(t, "a", 0)
	n.have(a)
	v := web(trusts + "file:corp")
	n.signer.from(func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		if err := os.Remove(n.corp); err != nil {
			t.Error(err)
		}
		until(t, "the file is missed", func() bool { return strings.Contains(n.log.String(), "not found") })
		return ca.Sign(ctx, req)
	})
	n.has(n.publish(v), a)
	n.unpublish(v)
	n.empty()
}

// A source that was never read, as after a change of the driver's flags, holds up no other.
func TestASourceThatIsNewAndMissing(t *testing.T) {
	n := newTrusting(t, nil)
	a, b := root(t, "a", 0), root(t, "b", 0)
	n.have(a)
	p := &someProfiles{now: profile("trust=file:corp", "duration=4s")}
	edit := n.edit
	n.edit = func(c *driver.Config) {
		edit(c)
		c.Profiles = p
	}
	n.restart()
	v := web("csi.mayfly.dev/profile=web")
	delete(v.Attributes, "csi.mayfly.dev/duration")
	target := n.publish(v)
	p.set(profile("trust=file:corp,file:other", "duration=1h"), nil)
	before := pair(t, target)
	until(t, "the renewal", func() bool { return !pair(t, target).Equal(before) })
	n.have(b)
	n.shows(target, b)
	until(t, "the pod is told", func() bool { return len(n.events()) == 1 })
	if got := n.events()[0]; !strings.Contains(got, "the pod goes on without CA certificates from file:other") {
		t.Error(got)
	}
}

func TestAVolumeOfADriverWithoutSources(t *testing.T) {
	n := newNode(t, nil)
	n.fails(web(trusts+"config-map:corp/ca.crt"), "trust source config-map:corp/ca.crt: this driver has no source but the issuer")
}

// A source that vanishes or turns to garbage changes nothing but what the pod is told, once; nor does a restart without it.
func TestASourceInTrouble(t *testing.T) {
	n := newTrusting(t, nil)
	a, b := root(t, "a", 0), root(t, "b", 0)
	n.have(a)
	v := web(trusts+"file:corp,issuer", "csi.mayfly.dev/duration=4s")
	target := n.publish(v)
	if err := os.Remove(n.corp); err != nil {
		t.Fatal(err)
	}
	until(t, "the pod is told", func() bool { return len(n.events()) == 1 })
	want := "shop/web-0 TrustBundleKept: volume tls: file " + n.corp + " not found; the pod keeps the CA certificates that it has from file:corp"
	if got := n.events()[0]; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	n.restart()
	before := pair(t, target)
	until(t, "a renewal", func() bool { return !pair(t, target).Equal(before) })
	n.has(target, a, n.issuer())
	n.write([]byte("garbage"))
	until(t, "the pod is told", func() bool { return len(n.events()) == 2 })
	if got := n.events()[1]; !strings.Contains(got, "there is no certificate in") {
		t.Error(got)
	}
	n.has(target, a, n.issuer())
	n.have(b)
	n.shows(target, b, n.issuer())
	if got := n.events(); len(got) != 2 {
		t.Errorf("%q", got)
	}
	n.unpublish(v)
	n.empty()
}

// The driver is started with other flags: what a pod has does not depend on them.
func TestAFileThatIsTakenFromTheDriver(t *testing.T) {
	var taken bool
	n := newTrusting(t, func(c *driver.Config) {
		if taken {
			w, err := trust.New(trust.Config{Log: c.Log})
			if err != nil {
				t.Fatal(err)
			}
			c.Trust, c.Defaults.TrustFiles = w, nil
		}
	})
	a := root(t, "a", 0)
	n.have(a)
	v := web(trusts+"file:corp", "csi.mayfly.dev/duration=4s")
	target := n.publish(v)
	taken = true
	n.restart()
	before := pair(t, target)
	until(t, "a renewal", func() bool { return !pair(t, target).Equal(before) })
	n.has(target, a)
	n.publish(v)
	until(t, "the pod is told", func() bool { return len(n.events()) == 1 })
	n.unpublish(v)
	n.empty()
}

// The issuer goes over to another CA. Who still has a certificate of the old one is trusted until it ends, and then not any longer.
func TestTheOldRootStays(t *testing.T) {
	n := newTrusting(t, nil)
	next, err := local.Open(filepath.Join(t.TempDir(), "next"))
	if err != nil {
		t.Fatal(err)
	}
	v := web("csi.mayfly.dev/duration=15s")
	target := n.publish(v)
	first, old := pair(t, target), n.issuer()
	n.has(target, old)
	n.signer.from(func(ctx context.Context, req signer.Request, _ signer.Signer) (signer.Issued, error) {
		req.Duration = time.Hour
		return next.Sign(ctx, req)
	})
	n.renew(v)
	until(t, "the renewal", func() bool { return !pair(t, target).Equal(first) })
	got := parse(t, read(t, target, "ca.crt"))
	if len(got) != 2 || got[0].Equal(old) || !got[1].Equal(old) {
		t.Fatalf("%d CA certificates: want the new one and the old one", len(got))
	}
	verify(t, first, got)
	verify(t, pair(t, target), got)
	n.restart()
	if time.Now().Before(first.NotAfter) {
		n.has(target, got...)
	}
	n.shows(target, got[0]) // Nothing but time has passed.
	if time.Now().Before(first.NotAfter) {
		t.Error("the old root is gone before the certificate under it has ended")
	}
	if len(n.signer.asked()) != 2 {
		t.Errorf("%d requests", len(n.signer.asked()))
	}
}

func verify(t *testing.T, leaf *x509.Certificate, roots []*x509.Certificate) {
	t.Helper()
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	for _, c := range roots {
		options.Roots.AddCert(c)
	}
	if _, err := leaf.Verify(options); err != nil {
		t.Error(err)
	}
}

// A volume of a driver that kept no record of CA certificates. It gets other sources than it had, as --trust may give it.
func TestAVolumeThatWasMadeBefore(t *testing.T) {
	var flag string
	n := newTrusting(t, func(c *driver.Config) { c.Defaults.Trust = flag })
	v := web()
	target := n.publish(v)
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	link, err := os.Readlink(filepath.Join(target, "..data"))
	if err != nil {
		t.Fatal(err)
	}
	known := n.inState(v, "trust."+strings.TrimPrefix(link, ".."))
	if err := os.Remove(known); err != nil {
		t.Fatal(err)
	}
	n.start()
	until(t, "it is taken up", func() bool { return exists(t, known) })
	if now, err := os.Readlink(filepath.Join(target, "..data")); err != nil || now != link {
		t.Errorf("the files were written again: %s, %s (%v)", link, now, err)
	}
	flag = "file:corp"
	n.restart()
	n.has(target, n.issuer())
	a := root(t, "a", 0)
	n.have(a)
	n.shows(target, a, n.issuer()) // The pod's certificate is under it.
	n.unpublish(v)
	n.empty()
}

// Sets of the greatest size fit, twice, in all layouts.
func TestTheGreatestSet(t *testing.T) {
	n := newTrusting(t, nil)
	set := func() (all []*x509.Certificate) {
		for range 16 {
			all = append(all, root(t, "big", 46<<10))
		}
		return all
	}
	first, second := set(), set()
	if size := len(chain.Encode(first...)); size < trust.MaxSize*9/10 || size > trust.MaxSize {
		t.Fatalf("%d bytes", size)
	}
	n.have(first...)
	v := web(trusts+"file:corp", "csi.mayfly.dev/spiffe=true", "csi.mayfly.dev/layout=pem,bundle,combined,istio,gke,spiffe,pkcs12,jks")
	target := n.publish(v)
	n.has(target, first...)
	n.have(second...)
	n.shows(target, second...)
	n.have(first...)
	n.shows(target, first...)
	n.unpublish(v)
	n.empty()
}

// A push that can't be written leaves all as it was.
func TestAPushThatFails(t *testing.T) {
	n := newTrusting(t, nil)
	a, b := root(t, "a", 0), root(t, "b", 0)
	n.have(a)
	v := web(trusts + "file:corp")
	target := n.publish(v)
	fill(t, n.inState(v, "filler"))
	n.have(b)
	until(t, "the push fails", func() bool { return strings.Contains(n.log.String(), "CA certificates not changed") })
	pair(t, target)
	n.has(target, a)
	n.unpublish(v)
	n.empty()
}

// Sources change all the time while volumes come and go, renew and are read.
func TestPushesAmongAllElse(t *testing.T) {
	n := newTrusting(t, nil)
	sets := [][]*x509.Certificate{{root(t, "a", 0)}, {root(t, "b", 0)}}
	n.have(sets[0]...)
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			n.have(sets[i%2]...)
			time.Sleep(20 * time.Millisecond) // Faster changes are seen as one.
		}
	})
	var volumes sync.WaitGroup
	for i := range 8 {
		volumes.Go(func() {
			for round := range 6 {
				v := web(trusts+"file:corp,issuer", "csi.mayfly.dev/duration=2s")
				v.UID = fmt.Sprintf("3b2f6a5e-%04d-4c5e-9d3e-%012d", i, round)
				target, err := n.Publish(ctx, n.driver, v)
				if err != nil {
					t.Error(err)
					return
				}
				for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
					if _, err := kubelet.Load(target); err != nil {
						t.Error(err)
						return
					}
				}
				if err := n.Unpublish(ctx, n.driver, v); err != nil {
					t.Error(err)
				}
			}
		})
	}
	volumes.Wait()
	cancel()
	work.Wait()
	n.empty()
}

func TestMetricsOfTrust(t *testing.T) {
	registry := prometheus.NewRegistry()
	n := newTrusting(t, func(c *driver.Config) { c.Metrics = registry })
	n.have(root(t, "a", 0))
	v := web(trusts + "file:corp,issuer")
	target := n.publish(v)
	b := root(t, "b", 0)
	n.have(b)
	n.shows(target, b, n.issuer())
	want := map[string]float64{"mayfly_trust_changes_total": 1, "mayfly_trust_sources_in_trouble": 0}
	until(t, "one change is counted", func() bool { return maps.Equal(values(t, registry, want), want) })
	if err := os.Remove(n.corp); err != nil {
		t.Fatal(err)
	}
	want["mayfly_trust_sources_in_trouble"] = 1
	until(t, "the trouble shows", func() bool { return maps.Equal(values(t, registry, want), want) })
}

// TestARootThatExpires: it goes at its end, with nothing but time that passes, and is counted.
func TestARootThatExpires(t *testing.T) {
	registry := prometheus.NewRegistry()
	n := newTrusting(t, func(c *driver.Config) { c.Metrics = registry })
	lasting, ending := root(t, "lasting", 0), rootUntil(t, "ending", time.Now().Add(5*time.Second), 0)
	n.have(ending, lasting)
	v := web(trusts + "file:corp")
	target := n.publish(v)
	if time.Now().Before(ending.NotAfter) {
		n.has(target, ending, lasting)
	}
	n.shows(target, lasting)
	if time.Now().Before(ending.NotAfter) {
		t.Error("the root is gone before its end")
	}
	want := map[string]float64{"mayfly_trust_roots_expired": 1}
	if got := values(t, registry, want); !maps.Equal(got, want) {
		t.Errorf("metrics %v", got)
	}
	n.have(ending)
	n.shows(target, ending) // An empty file is no better.
}

// A restart does not look at volumes whose only source is their issuer. A root of the issuer's goes at its end all the
// same.
func TestARootOfTheIssuerThatExpiresAfterARestart(t *testing.T) {
	n := newTrusting(t, nil)
	ending := rootUntil(t, "ending", time.Now().Add(6*time.Second), 0)
	n.signer.from(func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		issued, err := ca.Sign(ctx, req)
		issued.CA = append(issued.CA, chain.Encode(ending)...)
		return issued, err
	})
	v := web()
	target := n.publish(v)
	if time.Now().Before(ending.NotAfter) {
		n.has(target, n.issuer(), ending)
	}
	n.restart()
	n.shows(target, n.issuer())
	if time.Now().Before(ending.NotAfter) {
		t.Error("the root is gone before its end")
	}
}

// A known source has an answer at once, and never says that it changed.
type known struct{ certificates chain.Bundle }

func (k *known) Follow(volume.Source, func()) (stop func()) { return func() {} }

func (k *known) Answer(volume.Source) trust.Answer { return trust.Answer{Certificates: k.certificates} }

// A source that changed while no driver ran is looked at when the next one starts, even if it does not change again.
func TestASourceThatChangedMeanwhile(t *testing.T) {
	before, after := root(t, "before", 0), root(t, "after", 0)
	source := &known{chain.BundleOf(before)}
	n := newTrusting(t, func(c *driver.Config) { c.Trust = source })
	target := n.publish(web(trusts + "file:corp"))
	n.has(target, before)
	must(t, n.stop())
	source.certificates = chain.BundleOf(after)
	n.start()
	n.shows(target, after)
}

// values are those of some metrics without labels.
func values(t *testing.T, registry *prometheus.Registry, of map[string]float64) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, f := range families {
		if _, wanted := of[f.GetName()]; wanted {
			for _, m := range f.GetMetric() {
				found[f.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return found
}

// stopped calls then after the end of each watch.
type stopped struct {
	trust.Sources
	then func()
}

func (s stopped) Follow(source volume.Source, changed func()) (stop func()) {
	end := s.Sources.Follow(source, changed)
	return func() {
		end()
		s.then()
	}
}

// A volume that is published while one of its id is removed has nothing of that one, and loses nothing with it.
func TestAPublishDuringARemoval(t *testing.T) {
	pods, then := newPods(), func() {}
	n := newTrusting(t, withPods(pods, func(c *driver.Config) { c.Trust = stopped{c.Trust, func() { then() }} }))
	n.have(root(t, "a", 0))
	v := web(withIPs, "csi.mayfly.dev/continue-on-not-ready=true", trusts+"file:corp")
	target := n.publish(v)
	var during error
	then = func() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, during = n.Publish(ctx, n.driver, v)
	}
	n.unpublish(v)
	then = func() {}
	if during != nil {
		n.publish(v)
	}
	pods.have("192.0.2.8")
	until(t, "the certificate", func() bool { return exists(t, filepath.Join(target, "tls.crt")) })
	n.unpublish(v)
	n.empty()
}
