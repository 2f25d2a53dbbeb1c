package driver_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/mayfly-csi/mayfly/driver"
)

func TestAKeyThatIsKept(t *testing.T) {
	n := newNode(t, nil)
	v := web("csi.mayfly.dev/duration=3s", "csi.mayfly.dev/reuse-private-key=true")
	target := n.publish(v)
	before := pair(t, target)
	n.restart()
	until(t, "the renewal", func() bool { return !pair(t, target).Equal(before) })
	if !bytes.Equal(pair(t, target).RawSubjectPublicKeyInfo, before.RawSubjectPublicKeyInfo) {
		t.Error("the key changed")
	}
}

func TestACertificateThatIsNotRenewed(t *testing.T) {
	n := newNode(t, nil)
	once, other := web("csi.mayfly.dev/duration=2s", "csi.mayfly.dev/renew=false"), web("csi.mayfly.dev/duration=2s")
	other.UID = "3b2f6a5e-0001-4c5e-9d3e-000000000002"
	first := pair(t, n.publish(once))
	n.restart()
	second := n.publish(other)
	before := pair(t, second)
	until(t, "the certificate expires, and the other pod's is renewed", func() bool {
		return time.Now().After(first.NotAfter) && !pair(t, second).Equal(before)
	})
	if !pair(t, n.Target(once)).Equal(first) {
		t.Error("it was renewed")
	}
}

// The password comes with the publish call alone. It must last for the renewals after a restart, and be in no record.
func TestThePasswordOfASecret(t *testing.T) {
	const password = "from-the-secret"
	n := newNode(t, nil)
	v := web("csi.mayfly.dev/duration=3s", "csi.mayfly.dev/layout=pem,pkcs12")
	v.Secrets = map[string]string{"keystore-password": password}
	target := n.publish(v)
	serial := func() string {
		store, err := os.ReadFile(filepath.Join(target, "keystore.p12"))
		if err != nil {
			t.Fatal(err)
		}
		_, leaf, _, err := pkcs12.DecodeChain(store, password)
		if err != nil {
			t.Fatal(err)
		}
		return leaf.SerialNumber.String()
	}
	before := serial()
	record, err := os.ReadFile(n.inState(v, "record.json"))
	if err != nil || bytes.Contains(record, []byte(password)) {
		t.Errorf("the record: %s (%v)", record, err)
	}
	n.restart()
	until(t, "the renewal", func() bool { return serial() != before })
	n.unpublish(v)
	n.empty()
}

// An attempt resolves a volume whose password came from a Secret as the call did.
func TestAProfileAndThePasswordOfASecret(t *testing.T) {
	p := &someProfiles{now: profile("duration=15m", "key-algorithm=ecdsa")}
	n := newNode(t, func(c *driver.Config) { c.Profiles = p })
	v := web("csi.mayfly.dev/profile=web", "csi.mayfly.dev/layout=pem,bundle,pkcs12")
	delete(v.Attributes, "csi.mayfly.dev/duration")
	v.Secrets = map[string]string{"keystore-password": "from-the-secret"}
	target := n.publish(v)
	p.set(profile("duration=15m", "key-size=384"), nil)
	before := pair(t, target)
	n.renew(v)
	until(t, "the renewal", func() bool { return !pair(t, target).Equal(before) })
	if key, ok := pair(t, target).PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P384() {
		t.Error("the renewal is not of the profile as it is now")
	}
	if strings.Contains(n.log.String(), "what counted before counts") {
		t.Error("the profile does not fit")
	}
}

func TestAnOwnerOfTheFiles(t *testing.T) {
	n := newNode(t, nil)
	target := n.publish(web("csi.mayfly.dev/uid=999", "csi.mayfly.dev/mode=0600"))
	info, err := os.Stat(filepath.Join(target, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	if stat := info.Sys().(*syscall.Stat_t); info.Mode().Perm() != 0o600 || stat.Uid != 999 {
		t.Errorf("%v of %d", info.Mode(), stat.Uid)
	}
	container := open(t, target)
	if err := as(t.Context(), 999, 999, "cat", filepath.Join(container, "tls.key")); err != nil {
		t.Errorf("the owner: %v", err)
	}
	if err := as(t.Context(), 1000, 1000, "cat", filepath.Join(container, "tls.key")); err == nil {
		t.Error("another user can read the key")
	}
}
