package chain_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/signer/chain"
)

// Nothing that a text has is passed over without a word.
func TestParse(t *testing.T) {
	pa, pb := root(t, "a"), root(t, "b")
	a, b := text(pa), text(pb)
	old := block(negative(t, "Old Corp Root"))
	key := string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte("secret")}))
	replace := func(s, from, to string) string {
		t.Helper()
		if !strings.Contains(s, from) {
			t.Fatalf("there is no %q", from)
		}
		return strings.Replace(s, from, to, 1)
	}
	commented := "# " + strings.ReplaceAll(strings.TrimSpace(a), "\n", "\n# ") + "\n"
	for _, row := range []struct {
		name, text string
		want       string // The subjects.
		problem    string
	}{
		{"one", a, "CN=a", ""},
		{"two, with text around them", "# a\n" + a + "\n subject=b\n" + b + "the end", "CN=a CN=b", ""},
		{"one twice", a + a, "CN=a CN=a", ""},
		{"no line break between two", strings.TrimSpace(a) + b, "CN=a CN=b", ""},
		{"no line break at the end", strings.TrimSpace(a), "CN=a", ""},
		{"lines as Windows ends them", strings.ReplaceAll(a+b, "\n", "\r\n"), "CN=a CN=b", ""},
		{"lines as old Macs end them", strings.ReplaceAll("# a\n"+a+b, "\n", "\r"), "CN=a CN=b", ""},
		{"all in one line", strings.ReplaceAll(a+b, "\n", " "), "CN=a CN=b", ""},
		{"indented", "  " + strings.ReplaceAll(a+b, "\n", "\n  "), "CN=a CN=b", ""},
		{"a byte order mark", "\ufeff" + a, "CN=a", ""},
		{"text before a block, in its line", "ca: " + a, "CN=a", ""},
		{"a block with headers", replace(a, "-----\n", "-----\nX-Origin: corp\n\n"), "CN=a", ""},
		{"a commented block", b + commented, "CN=b", ""},
		{"words of certificates in a comment", "# -----BEGIN CERTIFICATE----- opens a block\n" + a, "CN=a", ""},
		{"one that crypto/x509 can't parse", a + old + b, "CN=a CN=Old Corp Root CN=b", ""},
		{"a dash more at the end", replace(a, "END CERTIFICATE-----", "END CERTIFICATE------") + b, "CN=a CN=b", ""},

		{"empty", "", "", "there is no certificate in 0 bytes"},
		{"garbage", "garbage", "", "there is no certificate in 7 bytes"},
		{"a comment alone", commented, "", "there is no certificate in"},
		{"a key", a + key, "", `PEM block 2: it is a "EC PRIVATE KEY", not a CERTIFICATE`},
		{"a trusted certificate of OpenSSL", strings.ReplaceAll(a, "CERTIFICATE", "TRUSTED CERTIFICATE"), "", `PEM block 1: it is a "TRUSTED CERTIFICATE", not a CERTIFICATE`},
		{"no certificate inside", block([]byte("x")), "", "PEM block 1: it is no certificate: x509: malformed certificate"},
		{"nothing inside", a + "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "", "PEM block 2: it is no certificate"},
		{"bytes after the certificate", block(append(bytes.Clone(pa.Raw), 0)), "", "PEM block 1: it is no certificate"},
		{"half a certificate", block(pa.Raw[:len(pa.Raw)/2]), "", "PEM block 1: it is no certificate"},
		{"cut off", a + b[:len(b)/2], "", "PEM block 2: it has no END line"},
		{"cut off, and another", a[:len(a)/2] + "\n" + b, "", "PEM block 1: its END line is missing or damaged"},
		{"base64 that is damaged", replace(a, "MII", "M!I") + b, "", "PEM block 1: its base64 is damaged"},
		{"base64 that lacks a character", replace(a, "MII", "MI") + b, "", "PEM block 1: its base64 is damaged"},
		{"line breaks that are written out", strings.ReplaceAll(a, "\n", `\n`), "", "PEM block 1: its base64 is damaged"},
		{"an END line that lacks a dash", a + replace(b, "END CERTIFICATE-----", "END CERTIFICATE----"), "", "PEM block 2: its END line is missing or damaged"},
		{"an END line that begins with four dashes", replace(a, "-----END", "----END") + b, "", "PEM block 1: its END line is missing or damaged"},
		{"an END line of another block", replace(a, "END CERTIFICATE", "END PRIVATE KEY") + b, "", "PEM block 1: its END line is missing or damaged"},
		{"a BEGIN line that lacks a dash", a + replace(b, "BEGIN CERTIFICATE-----", "BEGIN CERTIFICATE----"), "", "PEM block 2: its BEGIN line is damaged"},
		{"a BEGIN line that begins with four dashes", a + replace(b, "-----BEGIN", "----BEGIN"), "", "PEM block 2: there is base64 of a certificate without a BEGIN line"},
		{"a BEGIN line without a space", a + replace(b, "BEGIN CERT", "BEGINCERT"), "", "PEM block 2: there is base64 of a certificate without a BEGIN line"},
		{"a BEGIN line in small letters", a + replace(b, "BEGIN CERTIFICATE", "begin certificate"), "", "PEM block 2: there is base64 of a certificate without a BEGIN line"},
		{"no BEGIN line, and short lines", a + replace(strings.ReplaceAll(b, "MII", "MII\n"), "-----BEGIN CERTIFICATE-----\n", ""), "", "PEM block 2: there is an END line without a BEGIN line"},
		{"an END line after a block, in its line", replace(a, "END CERTIFICATE-----\n", "END CERTIFICATE----------END CERTIFICATE-----\n"), "", "PEM block 2: there is an END line without a BEGIN line"},
		{"dashes that two blocks share", replace(strings.TrimSpace(a), "END CERTIFICATE-----", "END CERTIFICATE") + b, "", "PEM block 2: there is base64 of a certificate without a BEGIN line"},
		{"a block in a block", replace(a, "MII", a+"MII"), "", "PEM block 1: its END line is missing or damaged"},

		{"too long", strings.Repeat("x", chain.MaxSize+1), "", "the text is 1048577 bytes long: the limit is 1048576"},
		{"too long a certificate", text(root(t, "big", padded(chain.MaxCertificate))), "", "PEM block 1: it is 65"},
		{"an RSA key of 8192 bits", text(huge(t, 8192)), "CN=huge", ""},
		{"an RSA key of 8193 bits", a + text(huge(t, 8193)), "", "PEM block 2: its RSA key has 8193 bits: the limit is 8192"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := chain.Parse([]byte(row.text))
			var names []string
			for _, c := range got {
				names = append(names, c.String())
			}
			if strings.Join(names, " ") != row.want {
				t.Errorf("got %s", names)
			}
			if (err == nil) != (row.problem == "") || err != nil && !strings.HasPrefix(err.Error(), row.problem) {
				t.Errorf("got %v, want %q", err, row.problem)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Error("a secret is in the error")
			}
		})
	}
}

func padded(size int) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.OCSPServer = []string{strings.Repeat("x", size)} }
}

func TestTooMany(t *testing.T) {
	one := text(root(t, "a"))
	if all, err := chain.Parse([]byte(strings.Repeat(one, chain.MaxCertificates))); err != nil || len(all) != chain.MaxCertificates {
		t.Errorf("%d, %v", len(all), err)
	}
	if _, err := chain.Parse([]byte(strings.Repeat(one, chain.MaxCertificates+1))); err == nil || err.Error() != "there are more than 1024 certificates" {
		t.Error(err)
	}
}

func TestEncode(t *testing.T) {
	a, b := root(t, "a"), root(t, "b")
	old := block(negative(t, "old"))
	all := bundle(t, "# x\n"+text(a)+old+"\n\n"+text(b)+text(a))
	if got, want := string(all.Encode()), text(a)+old+text(b)+text(a); got != want || all.Size() != len(want) {
		t.Errorf("%d bytes, want %d:\n%s", all.Size(), len(want), got)
	}
	if got, want := string(chain.Unite(all, all[:1]).Encode()), text(a)+old+text(b); got != want {
		t.Errorf("united:\n%s", got)
	}
	if got := string(all.Parsed().Encode()); got != text(a, b, a) {
		t.Errorf("parsed:\n%s", got)
	}
	if got := string(chain.Encode(a.Certificate, b.Certificate)); got != text(a, b) {
		t.Errorf("%s", got)
	}
	if _, err := all.X509(); err == nil || !strings.HasPrefix(err.Error(), "parse CN=old: x509: negative serial number") {
		t.Error(err)
	}
	if words := all.Unparsed(); len(words) != 1 || words[0] != "CN=old can't be parsed (x509: negative serial number): it is passed on as it is, unchecked" {
		t.Errorf("%q", words)
	}
}

// What is written is read again; what pem.Decode finds is found, or there is an error; and whoever sends garbage has
// no long answer.
func FuzzParse(f *testing.F) {
	a, b := text(root(f, "a")), text(root(f, "b"))
	f.Add([]byte(a + b))
	f.Add([]byte(strings.TrimSpace(a) + b))
	f.Add([]byte(a + "# comment\n" + block(negative(f, "old"))))
	f.Add([]byte(strings.Replace(a, "END CERTIFICATE-----", "END CERTIFICATE----", 1)))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n"))
	f.Add([]byte(strings.ReplaceAll(a, "\n", "\r")))
	f.Fuzz(func(t *testing.T, text []byte) {
		begin := time.Now()
		got, err := chain.Parse(text)
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("%d bytes took %s", len(text), took)
		}
		if err != nil {
			if got != nil || len(err.Error()) > 4096 {
				t.Errorf("%d certificates and an error of %d bytes", len(got), len(err.Error()))
			}
			return
		}
		again, err := chain.Parse(got.Encode())
		if err != nil || !again.Equal(got) || got.Size() != len(got.Encode()) {
			t.Errorf("it comes back otherwise: %v", err)
		}
		for found, rest := pem.Decode(text); found != nil; found, rest = pem.Decode(rest) {
			if !slices.ContainsFunc(got, func(c chain.Certificate) bool { return bytes.Equal(c.Raw(), found.Bytes) }) && !bytes.Contains(text, []byte("#")) {
				t.Errorf("a block of type %s is missing", found.Type)
			}
		}
	})
}

// What a certificate says of itself is in messages that are read by people, and no longer than they read.
func TestNames(t *testing.T) {
	long := root(t, strings.Repeat("x", 300))
	for _, row := range []struct {
		of   party
		want string
	}{
		{root(t, "Corp Root, Inc."), `CN=Corp Root\, Inc.`},
		{long, "the certificate with SHA-256 "},
		{root(t, "a\nlevel=ERROR"), "the certificate with SHA-256 "},
		{root(t, ""), "the certificate with SHA-256 "},
	} {
		if got := chain.Of(row.of.Certificate).String(); !strings.HasPrefix(got, row.want) || len(got) > 120 {
			t.Errorf("%s, want %s", got, row.want)
		}
	}
}

// crypto/x509 quotes what it can't parse, however long that is.
func TestALongProblemIsCut(t *testing.T) {
	uri := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte("http://[" + strings.Repeat("x", 5000))}
	value, err := asn1.Marshal([]asn1.RawValue{uri})
	if err != nil {
		t.Fatal(err)
	}
	template, key := ca("a"), newKey(t)
	template.SerialNumber = serial(t)
	template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	words := bundle(t, block(der)).Unparsed()
	if len(words) != 1 || len(words[0]) > 500 || !strings.HasPrefix(words[0], "CN=a can't be parsed (x509: cannot parse URI") {
		t.Errorf("%q", words)
	}
}

// A certificate with a long subject is named by its hash, without writing the subject: that takes the square of its size.
func TestLongSubjects(t *testing.T) {
	for n, named := range map[int]bool{10: true, 1000: false, 100000: false} {
		subject := func(c *x509.Certificate) { c.Subject.OrganizationalUnit = slices.Repeat([]string{"a"}, n) }
		c := chain.Of(root(t, "root", subject).Certificate)
		if allocs := testing.AllocsPerRun(1, func() { _ = c.String() }); !named && allocs > 100 {
			t.Errorf("%d: the name takes %v allocations", n, allocs)
		}
		if text := c.String(); strings.HasPrefix(text, "the certificate with SHA-256 ") == named || len(text) > 200 {
			t.Errorf("%d: %s", n, text)
		}
	}
}
