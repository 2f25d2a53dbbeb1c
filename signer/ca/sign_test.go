package ca_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/ca"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

func request(t *testing.T, template x509.CertificateRequest) *x509.CertificateRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// template is a certificate for web.test for a day.
func template(t *testing.T, usages ...signer.Usage) *x509.Certificate {
	t.Helper()
	id := &url.URL{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/shop/sa/web"}
	made, err := ca.Template(request(t, x509.CertificateRequest{DNSNames: []string{"web.test"}, URIs: []*url.URL{id}}), usages, false)
	if err != nil {
		t.Fatal(err)
	}
	made.NotBefore, made.NotAfter = now, now.AddDate(0, 0, 1)
	return made
}

// sign signs a template, and is the certificate, too.
func sign(t *testing.T, c ca.CA, template *x509.Certificate) (signer.Issued, *x509.Certificate) {
	t.Helper()
	issued, err := c.Sign(template)
	if err != nil {
		t.Fatal(err)
	}
	sent, err := ca.Decode(issued.Chain)
	if err != nil {
		t.Fatal(err)
	}
	return issued, sent[0]
}

func TestSign(t *testing.T) {
	top := root(t, "top")
	c := below(t, top, same)
	asked := template(t, signer.DigitalSignature, signer.ServerAuth)
	signed, leaf := sign(t, c, asked)
	sent, err := ca.Decode(signed.Chain)
	if err != nil || len(sent) != 2 || sent[0].CheckSignatureFrom(c.Certificate) != nil || !sent[1].Equal(c.Certificate) || !bytes.Equal(signed.CA, chain.Encode(top.Certificate)) {
		t.Errorf("%v (%v)", sent, err)
	}
	if !slices.Equal(leaf.DNSNames, asked.DNSNames) || leaf.URIs[0].String() != asked.URIs[0].String() || leaf.IsCA || !leaf.BasicConstraintsValid ||
		leaf.KeyUsage != x509.KeyUsageDigitalSignature || !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) ||
		!leaf.NotBefore.Equal(asked.NotBefore) || !leaf.NotAfter.Equal(asked.NotAfter) || !asked.PublicKey.(*ecdsa.PublicKey).Equal(leaf.PublicKey) {
		t.Errorf("%+v", leaf)
	}
	if len(leaf.SubjectKeyId) != 20 || !bytes.Equal(leaf.AuthorityKeyId, c.Certificate.SubjectKeyId) || len(leaf.AuthorityKeyId) == 0 {
		t.Errorf("key identifiers %x and %x", leaf.SubjectKeyId, leaf.AuthorityKeyId)
	}
	_, again := sign(t, c, asked)
	if again.SerialNumber.Cmp(leaf.SerialNumber) == 0 || leaf.SerialNumber.Sign() <= 0 || leaf.SerialNumber.BitLen() > 159 {
		t.Errorf("serial numbers %s and %s", leaf.SerialNumber, again.SerialNumber)
	}
}

// Names of a certificate without a subject are critical (RFC 5280, section 4.2.1.6).
func TestNamesWithoutASubject(t *testing.T) {
	for _, subject := range []pkix.Name{{}, {CommonName: "web"}} {
		asked, err := ca.Template(request(t, x509.CertificateRequest{Subject: subject, DNSNames: []string{"web.test"}}), nil, false)
		if err != nil {
			t.Fatal(err)
		}
		asked.NotBefore, asked.NotAfter = now, now.AddDate(0, 0, 1)
		_, leaf := sign(t, root(t, "top"), asked)
		names := slices.IndexFunc(leaf.Extensions, func(e pkix.Extension) bool { return e.Id.String() == "2.5.29.17" })
		if got := leaf.Extensions[names].Critical; got != (subject.CommonName == "") {
			t.Errorf("%v: critical %v", subject, got)
		}
	}
}

func TestACAIsNotOutlived(t *testing.T) {
	later := template(t)
	later.NotAfter = now.AddDate(1, 0, 1)
	const want = "CN=top ends at 2027-11-24T12:00:00Z, before the certificate that it is to sign"
	if _, err := root(t, "top").Sign(later); err == nil || err.Error() != want {
		t.Error(err)
	}
}

func TestTemplateRefuses(t *testing.T) {
	csr := request(t, x509.CertificateRequest{})
	if _, err := ca.Template(csr, []signer.Usage{"flying"}, false); err == nil || err.Error() != `unknown key usage "flying"` {
		t.Error(err)
	}
}

func TestValidity(t *testing.T) {
	made := func(begin, end time.Duration) ca.CA {
		c, err := ca.New("top", now.Add(begin), now.Add(end))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	const year, day = 365 * 24 * time.Hour, 24 * time.Hour
	for _, row := range []struct {
		name       string
		ca         ca.CA
		lifetime   time.Duration
		begin, end time.Duration // From now.
		want       string
	}{
		{"a day", made(-year, year), day, -2 * time.Minute, day - 2*time.Minute, ""},
		{"an hour", made(-year, year), time.Hour, -2 * time.Minute, 58 * time.Minute, ""},
		{"less", made(-year, year), time.Hour - time.Second, 0, 0, "a lifetime of 59m59s is less than the 1h0m0s that Kubernetes wants"},
		{"the CA is new", made(-time.Minute, year), day, -time.Minute, day - time.Minute, ""},
		{"the CA ends before", made(-year, 2*time.Hour), day, -2 * time.Minute, 2 * time.Hour, ""},
		{"an hour is left of the CA, with the time before", made(-year, 58*time.Minute), day, -2 * time.Minute, 58 * time.Minute, ""},
		{"less is left of the CA", made(-year, 57*time.Minute), day, 0, 0, "CN=top ends at 2026-11-24T12:57:00Z, and Kubernetes wants certificates of 1h0m0s at least"},
	} {
		begin, end, err := row.ca.Validity(now.Add(time.Millisecond), row.lifetime)
		if row.want != "" {
			if err == nil || err.Error() != row.want {
				t.Errorf("%s: %v, want %s", row.name, err, row.want)
			}
			continue
		}
		if err != nil || begin.Sub(now) != row.begin || end.Sub(now) != row.end {
			t.Errorf("%s: from %s to %s (%v), want %s to %s", row.name, begin.Sub(now), end.Sub(now), err, row.begin, row.end)
		}
	}
}
