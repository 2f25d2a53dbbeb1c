package files_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// content is a key with a chain of two and a CA.
func content(t *testing.T) files.Content {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block := func(serial int64) chain.Certificate {
		template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IsCA: serial > 1, BasicConstraintsValid: true}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := chain.FromDER(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	return files.Content{
		Key: []byte("key"), Bundle: []byte("bundle"), Chain: chain.Bundle{block(1), block(2)}, CA: chain.Bundle{block(3), block(4)}, Private: key, Password: "secret",
	}
}

func arrange(t *testing.T, part volume.Part, a volume.Algorithms, c files.Content) []byte {
	t.Helper()
	return arrangeStore(t, part, volume.Keystore{Algorithms: a}, c)
}

func arrangeStore(t *testing.T, part volume.Part, k volume.Keystore, c files.Content) []byte {
	t.Helper()
	set, err := files.Arrange(volume.Volume{Files: map[string]volume.Part{"f": part}, Keystore: k}, c)
	if err != nil || len(set) != 1 {
		t.Fatalf("%s: %v (%v)", part, set, err)
	}
	return set["f"]
}

func TestTexts(t *testing.T) {
	c := content(t)
	for part, want := range map[volume.Part]string{
		volume.KeyPart: "key", volume.ChainPart: string(c.Chain.Encode()), volume.CAPart: string(c.CA.Encode()), volume.BundlePart: "bundle",
		volume.CombinedPart: string(c.Chain.Encode()) + "key",
	} {
		if got := arrange(t, part, volume.Modern2023, c); string(got) != want {
			t.Errorf("%s: %q, want %q", part, got, want)
		}
	}
}

// TestBelowRoot: SPIFFE's draft wants the key and the chain, and no root, whoever sent one.
func TestBelowRoot(t *testing.T) {
	c := content(t)
	one := func(name, by string) chain.Certificate {
		subject, issuer := &x509.Certificate{Subject: pkix.Name{CommonName: name}, SerialNumber: big.NewInt(1)}, &x509.Certificate{Subject: pkix.Name{CommonName: by}}
		der, err := x509.CreateCertificate(rand.Reader, subject, issuer, c.Private.Public(), c.Private)
		if err != nil {
			t.Fatal(err)
		}
		made, err := chain.FromDER(der)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	leaf, between, root := one("leaf", "between"), one("between", "root"), one("root", "root")
	der, err := x509.MarshalPKCS8PrivateKey(c.Private)
	if err != nil {
		t.Fatal(err)
	}
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	for _, row := range []struct{ chain, want chain.Bundle }{
		{chain.Bundle{leaf, between, root}, chain.Bundle{leaf, between}},
		{chain.Bundle{leaf, between}, chain.Bundle{leaf, between}},
		{chain.Bundle{leaf, root, between}, chain.Bundle{leaf, between}},
		{chain.Bundle{root}, chain.Bundle{root}}, // It signed itself.
	} {
		c.Chain = row.chain
		if got := arrange(t, volume.BelowRootPart, "", c); string(got) != key+string(row.want.Encode()) {
			t.Errorf("%d certificates: %s", len(row.chain), got)
		}
	}
}

// algorithms are the object identifiers, in DER, of what encrypts the certificates of a store: PBES2 (RFC 8018,
// appendix C), and those of RFC 7292, appendix C.
var algorithms = map[volume.Algorithms]string{
	volume.Modern2023: "\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d",
	volume.LegacyDES:  "\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01\x03",
	volume.LegacyRC2:  "\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01\x06",
}

func TestPKCS12(t *testing.T) {
	c := content(t)
	for a, oid := range algorithms {
		key, leaf, chain, err := pkcs12.DecodeChain(arrange(t, volume.PKCS12Part, a, c), "secret")
		if err != nil || !c.Private.(*ecdsa.PrivateKey).Equal(key) || leaf.SerialNumber.Int64() != 1 || len(chain) != 1 {
			t.Errorf("%s: %v", a, err)
		}
		if store := arrange(t, volume.PKCS12Part, a, c); !bytes.Contains(store, []byte(oid)) {
			t.Errorf("%s: other algorithms", a)
		}
		cas, err := pkcs12.DecodeTrustStore(arrange(t, volume.PKCS12TrustPart, a, c), "secret")
		if err != nil || len(cas) != 2 || cas[0].SerialNumber.Int64() != 3 {
			t.Errorf("%s: %v (%v)", a, cas, err)
		}
		if _, _, _, err := pkcs12.DecodeChain(arrange(t, volume.PKCS12Part, a, c), "wrong"); err == nil {
			t.Errorf("%s: a wrong password opens it", a)
		}
	}
}

func TestJKS(t *testing.T) {
	c := content(t)
	store := keystore.New()
	if err := store.Load(bytes.NewReader(arrange(t, volume.JKSPart, volume.Modern2023, c)), []byte("secret")); err != nil {
		t.Fatal(err)
	}
	entry, err := store.GetPrivateKeyEntry("certificate", []byte("secret"))
	if err != nil || len(entry.CertificateChain) != 2 {
		t.Fatalf("%d certificates (%v)", len(entry.CertificateChain), err)
	}
	if key, err := x509.ParsePKCS8PrivateKey(entry.PrivateKey); err != nil || !c.Private.(*ecdsa.PrivateKey).Equal(key) {
		t.Errorf("another key (%v)", err)
	}
	trust := keystore.New()
	if err := trust.Load(bytes.NewReader(arrange(t, volume.JKSTrustPart, volume.Modern2023, c)), []byte("secret")); err != nil {
		t.Fatal(err)
	}
	if names := trust.Aliases(); len(names) != 2 || !trust.IsTrustedCertificateEntry(names[0]) {
		t.Errorf("entries %v", names)
	}
}

// TestAliases: the key has its alias, and the store is otherwise the same: the library checks the MAC, too.
func TestAliases(t *testing.T) {
	c := content(t)
	for _, password := range []string{"secret", "pässwörd", strings.Repeat("long", 50)} {
		c.Password = password
		for a := range algorithms {
			for _, alias := range []string{"", "Web 1", strings.Repeat("a", 64)} {
				k := volume.Keystore{Algorithms: a, Alias: alias}
				store := arrangeStore(t, volume.PKCS12Part, k, c)
				key, leaf, above, err := pkcs12.DecodeChain(store, password)
				if err != nil || !c.Private.(*ecdsa.PrivateKey).Equal(key) || !leaf.Equal(x509Of(t, c.Chain[0])) || len(above) != 1 {
					t.Errorf("%+v: %v", k, err)
				}
				if got := friendlyNames(t, store, password); !slices.Equal(got, []string{alias, "", ""}) {
					t.Errorf("%+v: the bags have the names %q", k, got)
				}
			}
		}
	}
	c.Password = "secret"
	for alias, want := range map[string]string{"": "certificate", "Web 1": "web 1"} {
		store := keystore.New()
		text := arrangeStore(t, volume.JKSPart, volume.Keystore{Alias: alias}, c)
		if err := store.Load(bytes.NewReader(text), []byte("secret")); err != nil || !slices.Equal(store.Aliases(), []string{want}) {
			t.Errorf("%q: %q (%v)", alias, store.Aliases(), err)
		}
	}
}

// friendlyNames are the names of the key and the certificates in a store, the key's first.
func friendlyNames(t *testing.T, store []byte, password string) (names []string) {
	t.Helper()
	blocks, err := pkcs12.ToPEM(store, password) //nolint:staticcheck // Nothing else of the library tells the names.
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks {
		if name := b.Headers["friendlyName"]; b.Type == "PRIVATE KEY" {
			names = slices.Insert(names, 0, name)
		} else {
			names = append(names, name)
		}
	}
	return names
}

func x509Of(t *testing.T, c chain.Certificate) *x509.Certificate {
	t.Helper()
	parsed, err := c.X509()
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// Not every issuer tells its CA.
func TestTruststoresWithoutACA(t *testing.T) {
	c := content(t)
	c.CA = nil
	if cas, err := pkcs12.DecodeTrustStore(arrange(t, volume.PKCS12TrustPart, volume.Modern2023, c), "secret"); err != nil || len(cas) != 0 {
		t.Errorf("PKCS#12: %v (%v)", cas, err)
	}
	trust := keystore.New()
	if err := trust.Load(bytes.NewReader(arrange(t, volume.JKSTrustPart, volume.Modern2023, c)), []byte("secret")); err != nil || len(trust.Aliases()) != 0 {
		t.Errorf("JKS: %v (%v)", trust.Aliases(), err)
	}
}
