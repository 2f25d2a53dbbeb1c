package chain_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/signer/chain"
)

// What was checked once costs no second check, and when none is left nothing is an issuer.
func TestChecksAreCounted(t *testing.T) {
	top := root(t, "top")
	a, b, c := chain.Of(top.leaf(t).Certificate), chain.Of(top.leaf(t).Certificate), chain.Of(top.leaf(t).Certificate)
	renewed := sign(t, ca("top"), nil, top.key) // Another certificate for the key.
	checks, above := chain.NewChecks(2), chain.Of(top.Certificate)
	for _, below := range []chain.Certificate{a, b, a, b} {
		if !checks.Issued(above, below) || !checks.Issued(chain.Of(renewed.Certificate), below) {
			t.Error("two checks are not enough for two certificates under one key")
		}
	}
	if checks.Issued(above, c) {
		t.Error("a third check was made of two")
	}
}

// A path that was verified is not checked again, and nothing else of it is known.
func TestChecksOfAChain(t *testing.T) {
	top := root(t, "top")
	between := top.under(t, "between")
	leaf := between.leaf(t)
	certificates, ca := chain.BundleOf(leaf.Certificate, between.Certificate), chain.BundleOf(top.Certificate)
	c, err := chain.New(certificates, ca, leaf.key.Public(), now)
	if err := errors.Join(err, c.Verified()); err != nil {
		t.Fatal(err)
	}
	checks := c.Checks(0)
	if !checks.Issued(certificates[1], certificates[0]) || !checks.Issued(ca[0], certificates[1]) {
		t.Error("a signature of the path is checked again")
	}
	if other := between.leaf(t); checks.Issued(certificates[1], chain.Of(other.Certificate)) {
		t.Error("a certificate that is not of the path counts as checked")
	}
	broken, err := chain.New(chain.BundleOf(leaf.Certificate, top.leaf(t).Certificate), nil, leaf.key.Public(), now)
	if err != nil || broken.Verified() == nil {
		t.Fatalf("%v, %v", err, broken.Verified())
	}
	if broken.Checks(0).Issued(certificates[1], certificates[0]) {
		t.Error("a chain that does not hold counts as checked")
	}
}

func TestIssued(t *testing.T) {
	top := root(t, "top")
	leaf, other := top.leaf(t), root(t, "other")
	rogue := root(t, "top", func(c *x509.Certificate) { c.SubjectKeyId = top.SubjectKeyId })
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sha1 := sign(t, ca("sha1"), nil, key)
	weak := sha1.leaf(t, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA })
	signer := root(t, "big")
	n := huge(t, 16<<10).PublicKey.(*rsa.PublicKey)
	der, err := x509.CreateCertificate(rand.Reader, ca("sha1"), signer.Certificate, n, signer.key)
	if err != nil {
		t.Fatal(err)
	}
	unread, err := chain.FromDER(negative(t, "top"))
	if err != nil {
		t.Fatal(err)
	}
	unknown := *leaf.Certificate
	unknown.SignatureAlgorithm = x509.UnknownSignatureAlgorithm
	for name, row := range map[string]struct {
		above, below chain.Certificate
		want         bool
	}{
		"its issuer":                       {chain.Of(top.Certificate), chain.Of(leaf.Certificate), true},
		"another":                          {chain.Of(other.Certificate), chain.Of(leaf.Certificate), false},
		"one with its name and identifier": {chain.Of(rogue.Certificate), chain.Of(leaf.Certificate), false},
		"one that can't be parsed":         {unread, chain.Of(leaf.Certificate), true},
		"by SHA-1":                         {chain.Of(sha1.Certificate), chain.Of(weak.Certificate), true},
		"by an algorithm nobody knows":     {chain.Of(top.Certificate), chain.Of(&unknown), true},
		"one whose key is too big":         {chain.Of(parse(t, der)), chain.Of(sha1.leaf(t).Certificate), false},
	} {
		if got := chain.NewChecks(1).Issued(row.above, row.below); got != row.want {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
	}
}

// Many CAs with the name of the leaf's issuer, and no key identifiers, are not all checked against each other: the
// issuer counts if it is among the first, and is but passed on if the checks are used up before it.
func TestManyCAsOfOneName(t *testing.T) {
	slow, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	plain := func(key *ecdsa.PrivateKey) party {
		p := sign(t, ca("top"), nil, key)
		p.SubjectKeyId = nil // What it signs says no key identifier.
		return p
	}
	top := plain(slow)
	leaf := top.leaf(t)
	hidden := func(p party) chain.Certificate { return chain.Of(p.Certificate) }
	var namesakes chain.Bundle
	for range 150 {
		key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		namesakes = append(namesakes, hidden(plain(key)))
	}
	for name, row := range map[string]struct {
		ca       chain.Bundle
		problems string
	}{
		"the issuer is the first": {chain.Unite(chain.Bundle{hidden(top)}, namesakes), ""},
		"the issuer is the last":  {append(namesakes[:len(namesakes):len(namesakes)], hidden(top)), "the issuer's CA CN=top is not above"},
	} {
		c, err := chain.New(chain.Bundle{hidden(leaf)}, row.ca, leaf.key.Public(), now)
		if err != nil || c.Verified() != nil {
			t.Fatalf("%s: %v, %v", name, err, c.Verified())
		}
		problems := strings.Join(c.Problems(), "; ")
		if (problems == "") != (row.problems == "") || !strings.HasPrefix(problems, row.problems) {
			t.Errorf("%s: problems %q, want %q", name, problems, row.problems)
		}
	}
}
