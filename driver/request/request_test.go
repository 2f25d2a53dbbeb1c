package request_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func web() volume.Volume {
	return volume.Volume{
		Spec: spec.Spec{Names: spec.Names{Subject: pkix.Name{CommonName: "web"}, DNSNames: []string{"web", "web.example"}, IPs: []net.IP{net.ParseIP("10.0.0.1")},
			URIs: []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/web"}}},
			Key: spec.Key{Algorithm: spec.ECDSA, Size: 256, Encoding: spec.PKCS8}},
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// certificate is what a signer makes for the key, changed by edit.
func certificate(t testing.TB, key crypto.Signer, edit func(*x509.Certificate)) []byte {
	t.Helper()
	v := web()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: v.Subject, DNSNames: v.DNSNames, IPAddresses: v.IPs, URIs: v.URIs,
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour),
	}
	if edit != nil {
		edit(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestKeys(t *testing.T) {
	rows := []struct {
		key  spec.Key
		want func(crypto.Signer) bool
	}{
		{spec.Key{Algorithm: spec.RSA, Size: 2048, Encoding: spec.PKCS1}, func(k crypto.Signer) bool { return k.(*rsa.PrivateKey).N.BitLen() == 2048 }},
		{spec.Key{Algorithm: spec.ECDSA, Size: 256, Encoding: spec.PKCS8}, func(k crypto.Signer) bool { return k.(*ecdsa.PrivateKey).Curve == elliptic.P256() }},
		{spec.Key{Algorithm: spec.ECDSA, Size: 384, Encoding: spec.PKCS8}, func(k crypto.Signer) bool { return k.(*ecdsa.PrivateKey).Curve == elliptic.P384() }},
		{spec.Key{Algorithm: spec.ECDSA, Size: 521, Encoding: spec.PKCS8}, func(k crypto.Signer) bool { return k.(*ecdsa.PrivateKey).Curve == elliptic.P521() }},
		{spec.Key{Algorithm: spec.Ed25519, Encoding: spec.PKCS8}, func(k crypto.Signer) bool { return len(k.(ed25519.PrivateKey)) == 64 }},
	}
	for _, row := range rows {
		key, err := request.NewKey(row.key)
		if err != nil || !row.want(key) {
			t.Errorf("%+v: %T, %v", row.key, key, err)
			continue
		}
		text, err := request.EncodeKey(key, row.key.Encoding)
		want := map[spec.Encoding]string{spec.PKCS1: "RSA PRIVATE KEY", spec.PKCS8: "PRIVATE KEY"}[row.key.Encoding]
		if block, _ := pem.Decode(text); err != nil || block.Type != want {
			t.Errorf("%+v: %s, %v", row.key, block.Type, err)
		}
		csr, err := web().CSR(key)
		if err != nil {
			t.Fatal(err)
		}
		pending, err := request.EncodePending(key, csr)
		if err != nil {
			t.Fatal(err)
		}
		again, csrAgain, err := request.DecodePending(pending)
		if err != nil || !bytes.Equal(csr, csrAgain) || !again.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
			t.Errorf("%+v: what was pending came back otherwise: %v", row.key, err)
		}
	}
}

func TestTheRequestSaysWhatTheVolumeAsksFor(t *testing.T) {
	v := web()
	key := newKey(t)
	der, err := v.CSR(key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil || csr.CheckSignature() != nil {
		t.Fatal(err)
	}
	if csr.Subject.CommonName != "web" || len(csr.DNSNames) != 2 || len(csr.IPAddresses) != 1 || len(csr.URIs) != 1 || len(csr.Extensions) != 1 {
		t.Errorf("%+v", csr)
	}
	if a, b := request.NewAttempt(), request.NewAttempt(); a == b || len(a) > 32 || strings.ToLower(a) != a {
		t.Errorf("attempts %q, %q", a, b)
	}
}

func TestCheck(t *testing.T) {
	key, other := newKey(t), newKey(t)
	good := certificate(t, key, nil)
	with := func(edit func(*x509.Certificate)) []byte { return certificate(t, key, edit) }
	rows := []struct {
		name      string
		chain, ca []byte
		want      string // Empty: accepted.
	}{
		{"good", good, good, ""},
		{"no CA", good, nil, ""},
		{"text between", append([]byte("subject=web\n"), good...), nil, ""},
		{"more names", with(func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "more") }), nil, ""},
		{"names in other case", with(func(c *x509.Certificate) { c.DNSNames = []string{"WEB", "web.example"} }), nil, ""},
		{"the common name as a DNS name alone", with(func(c *x509.Certificate) { c.Subject = pkix.Name{} }), nil, ""},
		{"begins in 5 minutes", with(func(c *x509.Certificate) { c.NotBefore = now.Add(request.MaxSkew) }), nil, ""},
		{"begins later", with(func(c *x509.Certificate) { c.NotBefore = now.Add(request.MaxSkew + time.Minute) }), nil, "the certificate is not valid before 2026-06-01T12:06:00Z: the clocks of the signer and of this node differ"},
		{"empty", nil, nil, "read the certificate chain: there is no certificate in 0 bytes"},
		{"garbage", []byte("garbage"), nil, "there is no certificate in 7 bytes"},
		{"garbage in PEM", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), nil, "PEM block 1: it is no certificate"},
		{"a key in the chain", append(bytes.Clone(good), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})...), nil, `PEM block 2: it is a "PRIVATE KEY", not a CERTIFICATE`},
		{"1 MiB", bytes.Repeat(good, 1<<20/len(good)+1), nil, "bytes long: the limit is 1048576"},
		{"another key", certificate(t, other, nil), nil, "the certificate is for another key than ours"},
		{"expired", with(func(c *x509.Certificate) { c.NotAfter = now }), nil, "the certificate expired at 2026-06-01T12:00:00Z"},
		{"no DNS name", with(func(c *x509.Certificate) { c.DNSNames = []string{"web"} }), nil, `the certificate lacks the DNS name "web.example" that was asked for`},
		{"no IP", with(func(c *x509.Certificate) { c.IPAddresses = nil }), nil, `the certificate lacks the IP address "10.0.0.1"`},
		{"no URI", with(func(c *x509.Certificate) { c.URIs = nil }), nil, `the certificate lacks the URI "spiffe://example.org/web"`},
		{"another path of the same trust domain", with(func(c *x509.Certificate) {
			c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/other"}}
		}), nil, `the certificate lacks the URI "spiffe://example.org/web"`},
		{"a garbage CA", good, []byte("x"), ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			pair, err := request.Check(web(), request.Pair{}, key, signer.Issued{Chain: row.chain, CA: row.ca}, now)
			switch {
			case row.want == "" && (err != nil || pair.Chain.Leaf() == nil || len(pair.Chain.Certificates()) == 0):
				t.Errorf("refused: %v", err)
			case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
	_, err := request.Check(web(), request.Pair{}, key, signer.Issued{Chain: with(func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour / 2) })}, now)
	var early *request.NotYetValid
	if !errors.As(err, &early) || !early.NotBefore.Equal(now.Add(time.Hour/2)) {
		t.Errorf("not yet valid: %v", err)
	}
}

func TestThePairComesBack(t *testing.T) {
	key := newKey(t)
	pair, err := request.Check(web(), request.Pair{}, key, signer.Issued{Chain: certificate(t, key, nil)}, now)
	if err != nil {
		t.Fatal(err)
	}
	text, err := request.EncodePair(pair)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := request.DecodePair(text, now); err != nil || !again.Chain.Leaf().Equal(pair.Chain.Leaf()) {
		t.Errorf("%v", err)
	}
	if c, err := request.DecodeChain(text, now); err != nil || !c.Leaf().Equal(pair.Chain.Leaf()) {
		t.Errorf("its chain: %v", err)
	}
	keyText, _, _ := bytes.Cut(text, []byte("-----BEGIN CERTIFICATE"))
	for name, spoilt := range map[string][]byte{
		"truncated": text[:len(text)/2], "empty": nil, "no key": pair.Chain.Certificates().Encode(),
		"two certificates and no key": bytes.Repeat(pair.Chain.Certificates().Encode(), 2),

		"another key": append(bytes.Clone(keyText), certificate(t, newKey(t), nil)...),
	} {
		if _, err := request.DecodePair(spoilt, now); err == nil {
			t.Errorf("%s is taken for a pair", name)
		}
		if _, err := request.DecodeChain(spoilt, now); err == nil && name != "another key" { // It reads no key.
			t.Errorf("%s is taken for a pair's chain", name)
		}
	}
}

// The subject alternative names are critical where the subject is empty, and only there (RFC 5280, section 4.1.2.6).
func TestNamesAreCriticalWithoutASubject(t *testing.T) {
	for _, row := range []struct {
		edit     func(*volume.Volume)
		critical bool
	}{
		{func(*volume.Volume) {}, false},
		{func(v *volume.Volume) { v.Subject = pkix.Name{} }, true},
		{func(v *volume.Volume) { v.Subject, v.RawSubject = pkix.Name{}, []byte{0x30, 0} }, false},
	} {
		v := web()
		row.edit(&v)
		der, err := v.CSR(newKey(t))
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil {
			t.Fatal(err)
		}
		names := 0
		for _, extension := range csr.Extensions {
			if extension.Id.String() == "2.5.29.17" {
				names++
				if extension.Critical != row.critical {
					t.Errorf("subject %s: critical is %v", csr.Subject, extension.Critical)
				}
			}
		}
		if names != 1 || len(csr.DNSNames) != 2 || len(csr.URIs) != 1 || csr.CheckSignature() != nil {
			t.Errorf("%d extensions with names, %v, %v", names, csr.DNSNames, csr.URIs)
		}
	}
}

func TestTheSubjectOfARequest(t *testing.T) {
	v, err := volume.Parse(volume.Asked{ID: "csi-1", Target: "/t", Asked: spec.Asked{Driver: spec.OldDriver, Attributes: map[string]string{
		"csi.storage.k8s.io/pod.name": "web-0", "csi.storage.k8s.io/pod.namespace": "shop", "csi.storage.k8s.io/pod.uid": "7d4f",
		"csi.storage.k8s.io/serviceAccount.name": "web", "csi.storage.k8s.io/ephemeral": "true",
		"csi.cert-manager.io/issuer-name": "ca", "csi.cert-manager.io/organizations": "ignored",
		"csi.cert-manager.io/literal-subject": "CN=${POD_NAME},OU=a+OU=b,O=Shop\\, Inc.,DC=example,DC=org,1.2.3.4=x",
	}}}, volume.Defaults{})
	if err != nil {
		t.Fatal(err)
	}
	der, err := v.CSR(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := csr.Subject.String(), `CN=web-0,OU=a+OU=b,O=Shop\, Inc.`; !strings.HasPrefix(got, want) || strings.Contains(got, "ignored") {
		t.Errorf("%s, want %s and the rest", got, want)
	}
	var sequence pkix.RDNSequence
	if _, err := asn1.Unmarshal(csr.RawSubject, &sequence); err != nil || len(sequence) != 6 || sequence[0][0].Type.String() != "1.2.3.4" || len(sequence[4]) != 2 {
		t.Errorf("%v (%v)", sequence, err)
	}
}
