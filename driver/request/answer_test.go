package request_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// An issuer has a certificate and its key.
type issuer struct {
	*x509.Certificate
	key crypto.Signer
}

// newIssuer makes a CA that ends at a time; without another it signs itself.
func newIssuer(t testing.TB, name string, end time.Time, by *issuer) issuer {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-24 * time.Hour), NotAfter: end, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key := newKey(t)
	parent := issuer{template, key}
	if by != nil {
		parent = *by
	}
	return issuer{parent.sign(t, template, key.Public()), key}
}

func (i issuer) sign(t testing.TB, template *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	der, err := x509.CreateCertificate(rand.Reader, template, i.Certificate, public, i.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// issue signs what the volume of web asks for.
func (i issuer) issue(t testing.TB, key crypto.Signer, edits ...func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	v := web()
	template := &x509.Certificate{
		Subject: v.Subject, DNSNames: v.DNSNames, IPAddresses: v.IPs, URIs: v.URIs, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(2160 * time.Hour),
	}
	for _, edit := range edits {
		edit(template)
	}
	return i.sign(t, template, key.Public())
}

func text(all ...*x509.Certificate) (text []byte) {
	for _, c := range all {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text
}

func reasons(pair request.Pair) (all []string) {
	for _, w := range pair.Warnings {
		all = append(all, w.Reason)
	}
	return all
}

// What a peer would refuse is refused, and what holds ends with the first certificate of its path.
func TestThePathOfAnAnswer(t *testing.T) {
	key := newKey(t)
	root := newIssuer(t, "root", now.AddDate(10, 0, 0), nil)
	good, soon := newIssuer(t, "good", now.AddDate(1, 0, 0), &root), newIssuer(t, "soon", now.Add(10*time.Minute), &root)
	over, stranger := newIssuer(t, "over", now.Add(-time.Minute), &root), newIssuer(t, "stranger", now.AddDate(10, 0, 0), nil)
	leaf := good.issue(t, key)
	damaged := bytes.Replace(text(good.Certificate), []byte("-----END CERTIFICATE-----"), []byte("-----END CERTIFICATE----"), 1)
	for _, row := range []struct {
		name      string
		chain, ca []byte
		sent      []byte
		end       time.Time
		want      string
		warnings  string
	}{
		{"a whole chain", text(leaf, good.Certificate), text(root.Certificate), text(leaf, good.Certificate), leaf.NotAfter, "", ""},
		{"the root first, the leaf last", text(root.Certificate, good.Certificate, leaf), nil, text(leaf, good.Certificate, root.Certificate), leaf.NotAfter, "", ""},
		{"no line break between two", slices.Concat(text(leaf), bytes.TrimSpace(text(good.Certificate)), text(root.Certificate)), nil, text(leaf, good.Certificate, root.Certificate), leaf.NotAfter, "", ""},
		{"a damaged intermediate", append(text(leaf), damaged...), nil, nil, time.Time{}, "read the certificate chain: PEM block 2: its END line is missing or damaged", ""},
		{"an intermediate that ends in ten minutes", text(soon.issue(t, key), soon.Certificate), text(root.Certificate), nil, soon.NotAfter, "", ""},
		{"an intermediate that is over", text(over.issue(t, key, func(c *x509.Certificate) { c.NotBefore = now.Add(-time.Hour) }), over.Certificate), text(root.Certificate), nil, time.Time{},
			"the certificate of its issuer, CN=over, expired at 2026-06-01T11:59:00Z", ""},
		{"another's intermediate", text(leaf, stranger.Certificate), nil, nil, time.Time{}, "the certificate chain is broken", ""},
		{"an unrelated CA", text(leaf, good.Certificate), text(stranger.Certificate), text(leaf, good.Certificate), leaf.NotAfter, "", "UnusualChain"},
		{"a CA whose text is damaged", text(leaf, good.Certificate), damaged, text(leaf, good.Certificate), leaf.NotAfter, "", "UnusualChain"},
		{"a CA that crypto/x509 can't parse", text(leaf, good.Certificate), negative(t, root), text(leaf, good.Certificate), leaf.NotAfter, "", "UnusualChain"},
	} {
		t.Run(row.name, func(t *testing.T) {
			pair, err := request.Check(web(), request.Pair{}, key, signer.Issued{Chain: row.chain, CA: row.ca}, now)
			if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Fatalf("got %v, want %q", err, row.want)
			}
			if err != nil {
				return
			}
			if row.sent != nil && !bytes.Equal(pair.Chain.Certificates().Encode(), row.sent) {
				t.Errorf("sent:\n%s", pair.Chain.Certificates().Encode())
			}
			if !pair.Chain.End().Equal(row.end) || strings.Join(reasons(pair), " ") != row.warnings {
				t.Errorf("ends at %s, with warnings %+v", pair.Chain.End(), pair.Warnings)
			}
		})
	}
}

// later is a template of the CA that begins in an hour.
func later(c *x509.Certificate) *x509.Certificate {
	next := *c
	next.NotBefore = now.Add(time.Hour)
	return &next
}

// Time mends an intermediate that has not begun.
func TestAnIntermediateThatBeginsLater(t *testing.T) {
	key := newKey(t)
	root := newIssuer(t, "root", now.AddDate(10, 0, 0), nil)
	sub := newIssuer(t, "sub", now.AddDate(1, 0, 0), &root)
	sub.Certificate = root.sign(t, later(sub.Certificate), sub.key.Public())
	_, err := request.Check(web(), request.Pair{}, key, signer.Issued{Chain: text(sub.issue(t, key), sub.Certificate), CA: text(root.Certificate)}, now)
	var early *request.NotYetValid
	if !errors.As(err, &early) || !early.NotBefore.Equal(now.Add(time.Hour)) {
		t.Errorf("%v", err)
	}
}

// negative is the root with a negative serial number, which crypto/x509 does not parse.
func negative(t testing.TB, root issuer) []byte {
	t.Helper()
	number := root.SerialNumber.Bytes()
	i := bytes.Index(root.Raw, append([]byte{asn1.TagInteger, byte(len(number))}, number...))
	if i < 0 {
		t.Fatal("no serial number")
	}
	der := bytes.Clone(root.Raw)
	der[i+2] |= 0x80
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// asks is a volume as a pod asks for it.
func asks(t testing.TB, driver, prefix string, attributes ...string) volume.Volume {
	t.Helper()
	all := map[string]string{}
	if driver != spec.SPIFFEDriver { // Its volumes have the driver's issuer.
		all[prefix+"issuer-name"] = "ca"
	}
	for _, a := range attributes {
		key, value, _ := strings.Cut(a, "=")
		all[prefix+key] = value
	}
	asked := volume.Asked{ID: "csi-1"}
	asked.Asked = spec.AskedBy(signer.Pod{Namespace: "shop", Name: "web-0", UID: "u", ServiceAccount: "web"}, driver, all)
	v, err := volume.Parse(asked, volume.Defaults{Defaults: spec.Defaults{IssuerName: "mesh", TrustDomain: "example.org"}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// An issuer leaves out names: that is an error, or, for those who come from csi-driver, a warning.
func TestNamesThatAreLeftOut(t *testing.T) {
	root := newIssuer(t, "root", now.AddDate(10, 0, 0), nil)
	both := []string{"dns-names=web.shop.svc,web", "ip-sans=10.0.0.1"}
	for _, row := range []struct {
		name     string
		asks     []string
		has      x509.Certificate
		ours     string // Under our prefix; empty: no error.
		old      string // Under the old one; !: an error, or a warning.
		oldNames bool   // The attributes are known under the old prefix.
	}{
		{"all are there", both, x509.Certificate{DNSNames: []string{"web", "WEB.shop.svc"}, IPAddresses: web().IPs}, "", "", true},
		{"one of three", both, x509.Certificate{DNSNames: []string{"web.shop.svc"}}, `the certificate lacks the DNS name "web", IP address "10.0.0.1" that was asked for`, `the certificate lacks the DNS name "web", IP address "10.0.0.1" that was asked for`, true},
		{"none", both, x509.Certificate{DNSNames: []string{"other"}}, "the certificate lacks the DNS name", "!the certificate lacks the DNS name", true},
		{"the common name", []string{"common-name=web", "dns-names=a"}, x509.Certificate{DNSNames: []string{"a"}}, `lacks the common name "web"`, `lacks the common name "web"`, true},
		{"the common name of a literal subject", []string{"literal-subject=CN=web,O=Shop", "dns-names=a"}, x509.Certificate{DNSNames: []string{"a"}}, `lacks the common name "web"`, `lacks the common name "web"`, true},
		{"an e-mail address among DNS names, as Vault moves it", []string{"dns-names=svc@example.org"}, x509.Certificate{EmailAddresses: []string{"svc@example.org"}}, "", `lacks the DNS name "svc@example.org"`, true},
		{"the SPIFFE ID", []string{"spiffe=true", "dns-names=a"}, x509.Certificate{DNSNames: []string{"a"}}, `lacks the URI "spiffe://example.org/ns/shop/sa/web"`, "", false},
	} {
		check := func(driver, prefix, want string) {
			v := asks(t, driver, prefix, row.asks...)
			key, err := request.NewKey(v.Key)
			if err != nil {
				t.Fatal(err)
			}
			template := row.has
			template.NotBefore, template.NotAfter = now.Add(-time.Minute), now.Add(time.Hour)
			pair, err := request.Check(v, request.Pair{}, key, signer.Issued{Chain: text(root.sign(t, &template, key.Public())), CA: text(root.Certificate)}, now)
			problem, refused := strings.CutPrefix(want, "!")
			got := fmt.Sprint(err)
			if err == nil {
				got = fmt.Sprint(pair.Warnings)
			}
			if refused != (err != nil) || want == "" && len(pair.Warnings) > 0 || !strings.Contains(got, problem) {
				t.Errorf("%s, %s: %v, %+v; want %q", row.name, prefix, err, pair.Warnings, want)
			}
			if err == nil && want != "" && !slices.Equal(reasons(pair), []string{"MissingName"}) {
				t.Errorf("%s: %s", row.name, reasons(pair))
			}
		}
		if !strings.Contains(row.asks[0], "@") { // Such a name is refused when the pod asks for it.
			refused := ""
			if row.ours != "" {
				refused = "!" + row.ours
			}
			check(spec.Driver, spec.Prefix, refused)
		}
		if row.oldNames {
			check(spec.OldDriver, spec.OldPrefix, row.old)
		}
	}
	v := asks(t, spec.SPIFFEDriver, "")
	key, err := request.NewKey(v.Key)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{DNSNames: []string{"a"}, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour)}
	if _, err := request.Check(v, request.Pair{}, key, signer.Issued{Chain: text(root.sign(t, template, key.Public()))}, now); err == nil || !strings.Contains(err.Error(), `lacks the URI "spiffe://`) {
		t.Errorf("csi-driver-spiffe's volume: %v", err)
	}
}

// A usage that is left out is told, or is an error where the pod itself asked for it.
func TestUsagesThatAreLeftOut(t *testing.T) {
	root := newIssuer(t, "root", now.AddDate(10, 0, 0), nil)
	server := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	encipherment := func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }
	for _, row := range []struct {
		driver, prefix, usages string
		edit                   func(*x509.Certificate)
		want                   string
	}{
		{spec.Driver, spec.Prefix, "", func(*x509.Certificate) {}, ""},
		{spec.Driver, spec.Prefix, "", server, `MissingUsage the certificate lacks the usage "client auth" that was asked for`},
		{spec.Driver, spec.Prefix, "", encipherment, `MissingUsage the certificate lacks the usage "digital signature" that was asked for`},
		{spec.Driver, spec.Prefix, "server auth,client auth", server, `!the certificate lacks the usage "client auth" that was asked for`},
		{spec.Driver, spec.Prefix, "server auth", server, ""},
		{spec.OldDriver, spec.OldPrefix, "", encipherment, `MissingUsage the certificate lacks the usage "digital signature" that was asked for`},
		{spec.OldDriver, spec.OldPrefix, "server auth,client auth", server, `MissingUsage the certificate lacks the usage "client auth" that was asked for`},
	} {
		attributes := []string{"dns-names=web"}
		if row.usages != "" {
			attributes = append(attributes, "key-usages="+row.usages)
		}
		v := asks(t, row.driver, row.prefix, attributes...)
		key, err := request.NewKey(v.Key)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{DNSNames: []string{"web"}, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour)}
		row.edit(template)
		pair, err := request.Check(v, request.Pair{}, key, signer.Issued{Chain: text(root.sign(t, template, key.Public())), CA: text(root.Certificate)}, now)
		if got := outcome(pair, err); got != row.want {
			t.Errorf("%s %q: %s\nwant %s", row.prefix, row.usages, got, row.want)
		}
	}
}

// A certificate that is valid for another time than was asked for is taken, and told.
func TestAnotherDuration(t *testing.T) {
	root := newIssuer(t, "root", now.AddDate(10, 0, 0), nil)
	const longer = "OtherDuration the certificate is valid for 2160h0m0s, and 1h0m0s was asked for"
	for _, row := range []struct {
		driver, prefix, asked string
		begin, life           time.Duration
		want                  string
	}{
		{spec.Driver, spec.Prefix, "1h", 0, time.Hour, ""},
		{spec.Driver, spec.Prefix, "1h", -time.Hour, 2 * time.Hour, ""}, // It ends when it should.
		{spec.Driver, spec.Prefix, "1h", 0, 71 * time.Minute, ""},
		{spec.Driver, spec.Prefix, "1h", 0, 72 * time.Minute,
			"OtherDuration the certificate is valid for 1h12m0s, and 1h0m0s was asked for"},
		{spec.Driver, spec.Prefix, "1h", 0, 90 * 24 * time.Hour, longer},
		{spec.Driver, spec.Prefix, "1h", -time.Second, 90*24*time.Hour - time.Second, longer}, // As of ACME.
		{spec.OldDriver, spec.OldPrefix, "1h", 0, 90 * 24 * time.Hour, longer},
		{spec.Driver, spec.Prefix, "1h", 0, 31 * time.Minute, ""},
		{spec.Driver, spec.Prefix, "1h", 0, 29 * time.Minute,
			"OtherDuration the certificate is valid for 29m0s, and 1h0m0s was asked for"},
		{spec.OldDriver, spec.OldPrefix, "2160h", 0, 24 * time.Hour, ""},
	} {
		v := asks(t, row.driver, row.prefix, "dns-names=web", "duration="+row.asked)
		key, err := request.NewKey(v.Key)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			DNSNames: []string{"web"}, NotBefore: now.Add(row.begin), NotAfter: now.Add(row.begin + row.life),
		}
		issued := signer.Issued{Chain: text(root.sign(t, template, key.Public())), CA: text(root.Certificate)}
		pair, err := request.Check(v, request.Pair{}, key, issued, now)
		if got := outcome(pair, err); got != row.want {
			t.Errorf("%s %s asked for, %s given: %s\nwant %s", row.prefix, row.asked, row.life, got, row.want)
		}
	}
}

// A usage that the pod asked for and never had does not stop a renewal; one that it had does.
func TestUsagesOfARenewal(t *testing.T) {
	root := newIssuer(t, "root", now.AddDate(10, 0, 0), nil)
	v := asks(t, spec.Driver, spec.Prefix, "dns-names=web", "key-usages=server auth,client auth")
	issue := func(issuer issuer, usages ...x509.ExtKeyUsage) (crypto.Signer, signer.Issued) {
		key, err := request.NewKey(v.Key)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{DNSNames: []string{"web"}, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour), ExtKeyUsage: usages}
		return key, signer.Issued{Chain: text(issuer.sign(t, c, key.Public())), CA: text(issuer.Certificate)}
	}
	serversKey := newKey(t)
	servers := issuer{root.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "servers"}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, serversKey.Public()), serversKey}
	server, client := x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	for _, row := range []struct {
		name        string
		issuer      issuer
		before, now []x509.ExtKeyUsage
		want        string
	}{
		{"never had", root, []x509.ExtKeyUsage{server}, []x509.ExtKeyUsage{server}, `MissingUsage the certificate lacks the usage "client auth" that was asked for`},
		{"had", root, []x509.ExtKeyUsage{server, client}, []x509.ExtKeyUsage{server}, `!the certificate lacks the usage "client auth" that was asked for`},
		{"had another", root, []x509.ExtKeyUsage{server}, []x509.ExtKeyUsage{client}, `!the certificate lacks the usage "server auth" that was asked for`},
		{"has now", root, []x509.ExtKeyUsage{server}, []x509.ExtKeyUsage{server, client}, ""},
		{"its CA never gave", servers, []x509.ExtKeyUsage{server, client}, []x509.ExtKeyUsage{server, client}, `MissingUsage the certificate lacks the usage "client auth" that was asked for`},
	} {
		key, issued := issue(row.issuer, row.before...)
		installed, err := request.EncodePair(pairOf(t, key, issued))
		if err != nil {
			t.Fatal(err)
		}
		before, err := request.DecodePair(installed, now)
		if err != nil {
			t.Fatal(err)
		}
		key, issued = issue(row.issuer, row.now...)
		pair, err := request.Check(v, before, key, issued, now)
		if got := outcome(pair, err); got != row.want {
			t.Errorf("%s: %s\nwant %s", row.name, got, row.want)
		}
	}
}

// pairOf is a pair as an older driver installed it, which demanded no usage.
func pairOf(t *testing.T, key crypto.Signer, issued signer.Issued) request.Pair {
	t.Helper()
	pair, err := request.Check(asks(t, spec.Driver, spec.Prefix, "dns-names=web"), request.Pair{}, key, issued, now)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// outcome tells the warnings of a check, or its error.
func outcome(pair request.Pair, err error) (text string) {
	if err != nil {
		return "!" + err.Error()
	}
	for _, w := range pair.Warnings {
		text += w.Reason + " " + w.Message
	}
	return text
}

// The signing request has the usages and the CA flag, but in the old dialect and where the pod wants none:
// cert-manager compares them with those beside it (pkg/util/pki/certificatetemplate.go).
func TestTheRequestHasUsages(t *testing.T) {
	const names, usage, extended, constraints = "2.5.29.17 true", "2.5.29.15 true ", "2.5.29.37 false ", "2.5.29.19 true 30030101ff"
	const server, client = "06082b06010505070301", "06082b06010505070302"
	for _, row := range []struct {
		driver, prefix string
		attributes     []string
		want           []string
	}{
		{spec.Driver, spec.Prefix, nil, []string{names, usage + "03020780", extended + "3014" + server + client}},
		{spec.Driver, spec.Prefix, []string{"key-usages=client auth,server auth"}, []string{names, extended + "3014" + client + server}},
		{spec.Driver, spec.Prefix, []string{"key-usages=key encipherment,signing,decipher only"}, []string{names, usage + "030307a080"}},
		{spec.Driver, spec.Prefix, []string{"key-usages=any"}, []string{names, extended + "30060604551d2500"}},
		{spec.Driver, spec.Prefix, []string{"is-ca=true"}, []string{names, usage + "03020284", extended + "3014" + server + client, constraints}},
		{spec.Driver, spec.Prefix, []string{"usages-in-request=false", "is-ca=true"}, []string{names}},
		{spec.OldDriver, spec.OldPrefix, []string{"is-ca=true"}, []string{names}},
		{spec.SPIFFEDriver, "", nil, []string{names}},
	} {
		if row.driver != spec.SPIFFEDriver {
			row.attributes = append(row.attributes, "dns-names=web")
		}
		v := asks(t, row.driver, row.prefix, row.attributes...)
		der, err := v.CSR(newKey(t))
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range csr.Extensions {
			one := fmt.Sprintf("%s %v %x", e.Id, e.Critical, e.Value)
			if strings.HasPrefix(one, names) {
				one = names
			}
			got = append(got, one)
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%s %v:\n got %q\nwant %q", row.driver, row.attributes, got, row.want)
		}
	}
}
