package driver_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/mount"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/spec"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// The state directory of the driver at commit ef3140a: testdata has its record of web() and what it kept of CA
// certificates, with placeholders.
func TestAVolumeOfAnOlderDriver(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		renewIn time.Duration
		prefix  string // Of some attributes.
	}{
		{"is taken up", 5 * time.Minute, "csi.mayfly.dev/"},
		{"is renewed at the recorded time", 4 * time.Second, "csi.mayfly.dev/"},
		{"may have two prefixes", 5 * time.Minute, "csi.cert-manager.io/"},
	} {
		t.Run(row.name, func(t *testing.T) {
			n := newNode(t, nil)
			if err := n.stop(); err != nil {
				t.Fatal(err)
			}
			v, renewAt, later := web(), time.Now().Add(row.renewIn), row.renewIn > time.Minute
			n.layOut(v, renewAt, row.prefix)
			before := pair(t, n.Target(v))
			n.start()
			target := n.publish(v)
			if later {
				if asked := len(n.signer.asked()); asked != 0 || !pair(t, target).Equal(before) {
					t.Errorf("the signer was asked %d times", asked)
				}
				n.reports(v, target)
				n.pods.annotated(t, v.Pod, time.Now(), nil)
			}
			until(t, "the renewal", func() bool { return !pair(t, target).Equal(before) })
			until(t, "its end", func() bool { return n.record(v).Attempt == "" && !n.record(v).EndsAt.IsZero() })
			if r := n.record(v); !later && r.IssuedAt.Before(renewAt) {
				t.Errorf("renewed at %s, before %s", r.IssuedAt, renewAt)
			}
			n.reports(v, target)
			if _, isRSA := pair(t, target).PublicKey.(*rsa.PublicKey); isRSA != (row.prefix == spec.OldPrefix) {
				t.Errorf("the new key is a %T", pair(t, target).PublicKey)
			}
			// The older driver finds the new pair, should it come back.
			if to, err := os.Readlink(n.inState(v, "pair.pem")); err != nil || !strings.HasPrefix(to, "pair.") {
				t.Errorf("pair.pem: %s, %v", to, err)
			}
			n.unpublish(v)
			n.empty()
		})
	}
}

// layOut makes what that driver left of a volume whose pair it received eight minutes ago. Some of its attributes have the prefix.
func (n *node) layOut(v kubelet.Volume, renewAt time.Time, prefix string) {
	n.t.Helper()
	key, issued := n.certified("web-0.shop.svc")
	leaf, ca := parse(n.t, issued.Chain)[0], parse(n.t, issued.CA)[0]
	digest, now := sha256.Sum256(ca.Raw), time.Now()
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
	fill := strings.NewReplacer("csi.mayfly.dev/dns-names", prefix+"dns-names", "csi.mayfly.dev/issuer-name", prefix+"issuer-name", "ID", v.ID(), "TARGET", n.Target(v),
		"ISSUED_AT", stamp(now.Add(-8*time.Minute)), "RENEW_AT", stamp(renewAt), "ENDS_AT", stamp(leaf.NotAfter),
		"CA_DER", base64.StdEncoding.EncodeToString(ca.Raw), "CA_SHA256", hex.EncodeToString(digest[:]))
	dir, generation := n.inState(v, ""), n.inState(v, "data/..2855649945")
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		_, err = mount.Tmpfs(dir, "")
	}
	must(n.t, err, os.MkdirAll(generation, 0o755), os.MkdirAll(n.Target(v), 0o750))
	must(n.t, os.Symlink("..2855649945", n.inState(v, "data/..data")))
	for _, name := range []string{"record.json", "trust.json"} {
		text, err := os.ReadFile(filepath.Join("testdata", "ef3140a", name))
		must(n.t, err, os.WriteFile(n.inState(v, name), []byte(fill.Replace(string(text))), 0o600))
	}
	bundle := slices.Concat(key, issued.Chain)
	must(n.t, os.WriteFile(n.inState(v, "pair.pem"), bundle, 0o600))
	for name, text := range map[string][]byte{
		"tls.key": key, "tls.crt": issued.Chain, "credential-bundle.pem": bundle, "ca.crt": issued.CA,
	} {
		must(n.t, os.WriteFile(filepath.Join(generation, name), text, 0o444))
		must(n.t, os.Symlink("..data/"+name, n.inState(v, "data/"+name)))
	}
	must(n.t, os.Chmod(generation, 0o555), os.Chmod(n.inState(v, "data"), 0o555))
	must(n.t, mount.Bind(n.inState(v, "data"), n.Target(v)))
}

// certified is a new key as PEM, and a certificate of a quarter of an hour for it.
func (n *node) certified(name string) (key []byte, issued signer.Issued) {
	n.t.Helper()
	private, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	der, err2 := x509.MarshalPKCS8PrivateKey(private)
	csr, err3 := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name}}, private)
	must(n.t, err1, err2, err3)
	issued, err := n.signer.ca.Sign(n.t.Context(), signer.Request{
		CSR: csr, Duration: 15 * time.Minute, Usages: []signer.Usage{"digital signature", "server auth", "client auth"},
	})
	must(n.t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), issued
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
