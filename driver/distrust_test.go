package driver_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/trust"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/chain"
	"github.com/mayfly-csi/mayfly/signer/local"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// A distrusting node is a trusting one whose operator has a list of distrusted CA certificates.
type distrusting struct {
	*trusting
	profiles *someProfiles
	registry *prometheus.Registry   // Of the driver that runs.
	answers  atomic.Int64           // How often a source was asked.
	during   atomic.Pointer[func()] // Called once, while a source is asked; nil: nothing.
}

// An asked source tells when it is asked.
type asked struct {
	trust.Sources
	by *distrusting
}

func (a asked) Answer(s volume.Source) trust.Answer {
	a.by.answers.Add(1)
	if f := a.by.during.Swap(nil); f != nil {
		(*f)()
	}
	return a.Sources.Answer(s)
}

func newDistrusting(t *testing.T) *distrusting {
	t.Helper()
	n := &distrusting{profiles: &someProfiles{now: distrust()}}
	n.trusting = newTrusting(t, func(c *driver.Config) {
		n.registry = prometheus.NewRegistry()
		c.Metrics, c.Profiles, c.Trust = n.registry, n.profiles, asked{c.Trust, n}
	})
	return n
}

// distrust are profiles that say nothing but which CA certificates no volume may have.
func distrust(cas ...*x509.Certificate) *volume.Profiles {
	list := volume.Fingerprints{}
	for _, c := range cas {
		list = append(list, volume.FingerprintOf(c.Raw))
	}
	slices.SortFunc(list, func(a, b volume.Fingerprint) int { return bytes.Compare(a[:], b[:]) })
	return &volume.Profiles{Distrusted: list}
}

// distrust has the operator distrust these CA certificates, and no other.
func (n *distrusting) distrust(cas ...*x509.Certificate) { n.profiles.set(distrust(cas...), nil) }

// applied waits until the log says that the list is applied, with these counts.
func (n *distrusting) applied(fingerprints, volumes, issuer, without int) {
	n.t.Helper()
	line := fmt.Sprintf(`msg="the list of distrusted CA certificates is applied" fingerprints=%d volumes=%d withDistrustedIssuer=%d withoutCA=%d unresolved=0`,
		fingerprints, volumes, issuer, without)
	until(n.t, line, func() bool { return strings.Contains(n.log.String(), line) })
}

// hears waits for the events of pods, in any order.
func (n *distrusting) hears(want ...string) {
	n.t.Helper()
	until(n.t, "the events", func() bool { return len(n.events()) >= len(want) })
	got := n.events()
	for _, text := range want {
		if !slices.ContainsFunc(got, func(message string) bool { return strings.HasPrefix(message, text) }) {
			n.t.Errorf("got %q, which lacks %s", got, text)
		}
	}
	if len(got) != len(want) {
		n.t.Errorf("got %q, want %q", got, want)
	}
}

// named is a CA certificate as messages name it.
func named(c *x509.Certificate) string {
	return fmt.Sprintf("%s (SHA-256 %s)", c.Subject, volume.FingerprintOf(c.Raw))
}

// stores are the names of the CA certificates in the pod's truststores.
func stores(t *testing.T, target string) (p12, jks []string) {
	t.Helper()
	all, err := pkcs12.DecodeTrustStore(read(t, target, "truststore.p12"), "changeit")
	if err != nil {
		t.Error(err)
	}
	for _, c := range all {
		p12 = append(p12, c.Subject.CommonName)
	}
	store := keystore.New(keystore.WithOrderedAliases())
	if err := store.Load(bytes.NewReader(read(t, target, "truststore.jks")), []byte("changeit")); err != nil {
		t.Error(err)
	}
	for _, alias := range store.Aliases() {
		entry, err := store.GetTrustedCertificateEntry(alias)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(entry.Certificate.Content)
		if err != nil {
			t.Fatal(err)
		}
		jks = append(jks, c.Subject.CommonName)
	}
	return p12, jks
}

// A distrusted root is out of all files at once, without a certificate, and stays out: a source and a restart don't
// bring it back, but a list without it.
func TestADistrustedRootGoesAtOnce(t *testing.T) {
	n := newDistrusting(t)
	a, b := root(t, "a", 0), root(t, "b", 0)
	n.have(a, b)
	v, other := web(trusts+"file:corp,issuer", "csi.mayfly.dev/layout=pem,bundle,pkcs12,jks"), web()
	other.UID = "3b2f6a5e-0001-4c5e-9d3e-000000000002"
	target, unconcerned := n.publish(v), n.publish(other)
	leaf, chainOfPod := pair(t, target), read(t, target, "tls.crt")
	link := func(target string) string {
		to, err := os.Readlink(filepath.Join(target, "..data"))
		must(t, err)
		return to
	}
	before := link(unconcerned)

	n.distrust(a)
	n.shows(target, b, n.issuer())
	want := []string{"b", n.issuer().Subject.CommonName}
	if p12, jks := stores(t, target); !slices.Equal(p12, want) || !slices.Equal(jks, want) {
		t.Errorf("the truststores have %q and %q", p12, jks)
	}
	n.applied(1, 2, 0, 0)
	if link(unconcerned) != before {
		t.Error("a volume that did not have it was written again")
	}
	n.have(b, a)
	n.have(root(t, "c", 0), a)
	until(t, "the source changes", func() bool { return len(parse(t, read(t, target, "ca.crt"))) == 2 })

	// Until the list is read, each volume keeps to the one that it followed.
	n.profiles.set(nil, os.ErrDeadlineExceeded)
	n.restart()
	n.have(a, b)
	n.shows(target, b, n.issuer())
	answers := n.answers.Load()
	n.profiles.set(&volume.Profiles{}, nil) // Without a ConfigMap nobody says that it is trusted again.
	n.have(a)
	n.shows(target, n.issuer())
	if again := n.answers.Load() - answers; again > 20 {
		t.Errorf("the source was asked %d times for two changes", again)
	}
	n.distrust()
	n.shows(target, a, n.issuer())
	n.applied(0, 2, 0, 0)

	if !pair(t, target).Equal(leaf) || !bytes.Equal(read(t, target, "tls.crt"), chainOfPod) || len(n.signer.asked()) != 2 {
		t.Errorf("%d requests", len(n.signer.asked()))
	}
	n.hears()
	n.unpublish(v)
	n.unpublish(other)
	n.distrust(b)
	n.applied(1, 0, 0, 0)
	n.empty()
}

// A list that was emptied while no driver ran gives volumes their CA certificates back, those of the issuer, too.
func TestAListThatWasEmptiedMeanwhile(t *testing.T) {
	n := newDistrusting(t)
	other := root(t, "other", 0)
	n.signer.from(func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		issued, err := ca.Sign(ctx, req)
		issued.CA = append(issued.CA, chain.Encode(other)...)
		return issued, err
	})
	target := n.publish(web())
	n.has(target, n.issuer(), other)
	n.distrust(other)
	n.shows(target, n.issuer())
	must(t, n.stop())
	n.distrust()
	n.start()
	n.shows(target, n.issuer(), other)
}

// A list that changes while a volume is updated by the one before, back to that which the volume followed.
func TestAListThatChangesBackDuringAnUpdate(t *testing.T) {
	n := newDistrusting(t)
	a, b := root(t, "a", 0), root(t, "b", 0)
	n.have(a, b)
	target := n.publish(web(trusts + "file:corp"))
	back := func() { n.distrust() }
	n.during.Store(&back)
	n.distrust(a)
	until(t, "both changes", func() bool { return strings.Count(n.log.String(), "CA certificates changed") == 2 })
	n.has(target, a, b)
}

// The root of the pods' own certificates: what breaks is told, once, and a new CA mends it.
func TestTheRootOfThePodsCertificateIsDistrusted(t *testing.T) {
	n := newDistrusting(t)
	v := web("csi.mayfly.dev/layout=pem,bundle,pkcs12,jks")
	target, stolen := n.publish(v), n.issuer()
	first := pair(t, target)
	n.distrust(stolen)
	n.shows(target)
	if p12, jks := stores(t, target); len(p12)+len(jks) > 0 {
		t.Errorf("the truststores have %q and %q", p12, jks)
	}
	const empty = "shop/web-0 TrustBundleEmpty: volume tls: the driver's operator distrusts every CA certificate of the volume: its files of CA certificates are empty"
	issuer := "shop/web-0 CertificateDistrusted: volume tls: the driver's operator distrusts " + named(stolen) + ", which issued the pod's certificate"
	n.hears(empty, issuer)
	n.applied(1, 1, 1, 1)
	n.counts(1)
	n.restart()
	n.counts(1)

	// A renewal that brings such a certificate is no renewal.
	n.renew(v)
	refused := "signing failed: unusable certificate from Issuer ca: the driver's operator distrusts " + named(stolen) + ", which issued it"
	n.hears(empty, issuer, "shop/web-0 CertificateNotRenewed: volume tls: "+refused)
	n.health(v, csi.VolumeHealthErrorType_DEGRADED, "CertificateNotRenewed", refused)
	n.shows(target)
	if !pair(t, target).Equal(first) {
		t.Error("the pair in force has changed")
	}
	fresh := web()
	fresh.UID = "3b2f6a5e-0001-4c5e-9d3e-000000000009"
	n.fails(fresh, refused)
	n.unpublish(fresh)

	next, err := local.Open(filepath.Join(t.TempDir(), "next"))
	must(t, err)
	must(t, n.stop())
	n.rest(v)
	n.signer.from(func(ctx context.Context, req signer.Request, _ signer.Signer) (signer.Issued, error) {
		return next.Sign(ctx, req)
	})
	n.start()
	until(t, "the renewal", func() bool { return !pair(t, target).Equal(first) })
	now := parse(t, read(t, target, "ca.crt"))
	if len(now) != 1 || now[0].Equal(stolen) {
		t.Errorf("%d CA certificates", len(now))
	}
	verify(t, pair(t, target), now)
	n.counts(0)
	n.hears(empty, issuer, "shop/web-0 CertificateNotRenewed: volume tls: ")
	n.unpublish(v)
	n.empty()
}

// counts waits for the number of volumes whose certificate is of a distrusted issuer.
func (n *distrusting) counts(want float64) {
	n.t.Helper()
	until(n.t, "the metric", func() bool {
		of := map[string]float64{"mayfly_volumes_with_distrusted_issuer": want}
		return maps.Equal(values(n.t, n.registry, of), of)
	})
}

// waits demands that a publish call fails for that reason, after some seconds.
func (n *distrusting) waits(v kubelet.Volume, want string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 7*time.Second)
	defer cancel()
	_, err := n.Publish(ctx, n.driver, v)
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), want) {
		n.t.Errorf("got %v\nwant Unavailable: %s", err, want)
	}
}

// A pod whose sources have nothing but what is distrusted does not start, and does when source or list change.
func TestAPodWhoseOnlyCAIsDistrusted(t *testing.T) {
	n := newDistrusting(t)
	a, b := root(t, "a", 0), root(t, "b", 0)
	n.have(a)
	n.distrust(a)
	first, second := web(trusts+"file:corp"), web(trusts+"file:corp")
	second.UID = "3b2f6a5e-0001-4c5e-9d3e-000000000002"
	n.waits(first, "not signed yet: the driver's operator distrusts every CA certificate of the volume")
	if asked := len(n.signer.asked()); asked > 0 {
		t.Errorf("%d requests", asked)
	}
	starts := func(v kubelet.Volume, change func(), want *x509.Certificate) {
		ended := make(chan error, 1)
		go func() {
			_, err := n.Publish(context.Background(), n.driver, v)
			ended <- err
		}()
		until(t, "the attempt", func() bool { return exists(t, n.inState(v, files.RecordFile)) && n.record(v).Attempt != "" })
		change()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		n.has(n.Target(v), want)
		n.unpublish(v)
	}
	starts(first, func() { n.have(a, b) }, b)
	n.distrust(a, b)
	starts(second, func() { n.distrust(b) }, a)
	n.empty()
}

// A pod that had no certificate before a restart gets none by a list that is not known.
func TestNoFirstPairBeforeTheListIsRead(t *testing.T) {
	n := newDistrusting(t)
	v := web()
	n.signer.from(refuse(signer.Unavailable, "away"))
	n.fails(v, "away")
	n.signer.from(nil)
	n.profiles.set(nil, os.ErrDeadlineExceeded)
	n.restart()
	asked := len(n.signer.asked())
	const want = "not signed yet: the list of distrusted CA certificates, in the profiles' ConfigMap, has not been read yet"
	until(t, "a try in the background", func() bool { return strings.Contains(n.log.String(), want) })
	if again := len(n.signer.asked()); again != asked {
		t.Errorf("%d requests", again-asked)
	}
	n.distrust()
	n.publish(v)
	n.unpublish(v)
	n.empty()
}

// The list changes all the time while volumes come and go: in the end all follow it.
func TestTheListChangesAmongAllElse(t *testing.T) {
	n := newDistrusting(t)
	a, b := root(t, "a", 0), root(t, "b", 0)
	n.have(a, b)
	ctx, cancel := context.WithCancel(t.Context())
	changed := make(chan struct{})
	go func() {
		defer close(changed)
		for i := 0; ctx.Err() == nil; i++ {
			n.distrust([]*x509.Certificate{a, b}[i%2])
		}
	}()
	var targets []string
	for i := range 8 {
		v := web(trusts + "file:corp")
		v.UID = fmt.Sprintf("3b2f6a5e-0001-4c5e-9d3e-%012d", i)
		targets = append(targets, n.publish(v))
	}
	cancel()
	<-changed
	n.distrust(a)
	for _, target := range targets {
		n.shows(target, b)
	}
}
