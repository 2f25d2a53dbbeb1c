package chain_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/signer/chain"
)

// path names what lies between a leaf and its CA.
func sent(c chain.Chain) string {
	var names []string
	for _, one := range c.Certificates() {
		names = append(names, one.String())
	}
	return strings.Join(names, " ")
}

const (
	day  = 24 * time.Hour
	year = 365 * day
)

// TestNew has one row for each way in which an answer holds, or does not.
func TestNew(t *testing.T) {
	top, other := root(t, "top"), root(t, "other")
	sub := top.under(t, "sub")
	lower := sub.under(t, "lower")
	leaf := lower.leaf(t)
	alone := sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "web"}, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(90 * day)}, nil, newKey(t))

	// The same key and name, certified by two roots, for as long as the second says.
	cross := func(by party, edits ...func(*x509.Certificate)) party {
		return sign(t, ca("sub", edits...), &by, sub.key)
	}
	short, long := cross(top, ends(30*day)), cross(other, ends(60*day))
	twice := short.leaf(t)

	soon, over, later := top.under(t, "soon", ends(10*time.Minute)), top.under(t, "over", begins(-48*time.Hour), ends(-time.Minute)), top.under(t, "later", begins(time.Hour))
	ended := root(t, "ended", ends(-time.Minute))
	renewed := sign(t, ca("ended"), nil, ended.key) // The same key and name, for longer.
	namesake := root(t, "top")                      // The same name and another key.
	unknown := func(c *x509.Certificate) { c.SubjectKeyId = []byte{1} }
	plain, plainNamesake := root(t, "plain"), root(t, "plain")
	hidden := *plain.Certificate
	hidden.SubjectKeyId = nil
	unnamed := party{&hidden, plain.key}.leaf(t) // Nothing but the signature tells who of the two issued it.
	narrow := top.under(t, "narrow", func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"corp.example"}, true
	})
	servers := top.under(t, "servers", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	mails := top.under(t, "mails", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} })
	noCA := top.leaf(t, func(c *x509.Certificate) { c.Subject.CommonName = "no CA" })
	flat := top.under(t, "flat", func(c *x509.Certificate) { c.MaxPathLenZero = true })
	below := flat.under(t, "below flat")
	old := block(negative(t, "old"))
	same := root(t, "web")

	for _, row := range []struct {
		name      string
		leaf      party
		chain, ca string
		sent      string
		end       time.Duration // After now; 0: with the leaf.
		want      string        // Why it does not hold.
		problems  string
	}{
		{name: "a whole chain", leaf: leaf, chain: text(leaf, lower, sub), ca: text(top), sent: "CN=web CN=lower CN=sub"},
		{name: "with its root", leaf: leaf, chain: text(leaf, lower, sub, top), sent: "CN=web CN=lower CN=sub CN=top"},
		{name: "with its root in both places", leaf: leaf, chain: text(leaf, lower, sub, top), ca: text(top), sent: "CN=web CN=lower CN=sub CN=top"},
		{name: "without a root", leaf: leaf, chain: text(leaf, lower, sub), sent: "CN=web CN=lower CN=sub"},
		{name: "up to an intermediate", leaf: leaf, chain: text(leaf, lower), sent: "CN=web CN=lower"},
		{name: "with an intermediate as the CA", leaf: leaf, chain: text(leaf, lower), ca: text(sub), sent: "CN=web CN=lower"},
		{name: "intermediates among the CAs alone", leaf: leaf, chain: text(leaf), ca: text(top, sub, lower), sent: "CN=web"},
		{name: "the leaf alone", leaf: leaf, chain: text(leaf), sent: "CN=web"},
		{name: "the leaf alone, and its issuer's root", leaf: leaf, chain: text(leaf), ca: text(top), sent: "CN=web", problems: "the issuer's CA CN=top is not above the certificate"},
		{name: "in the wrong order", leaf: leaf, chain: text(leaf, sub, lower), ca: text(top), sent: "CN=web CN=lower CN=sub"},
		{name: "the leaf last", leaf: leaf, chain: text(top, sub, lower, leaf), sent: "CN=web CN=lower CN=sub CN=top"},
		{name: "the leaf in the middle", leaf: leaf, chain: text(lower, leaf, sub), ca: text(top), sent: "CN=web CN=lower CN=sub"},
		{name: "each twice", leaf: leaf, chain: text(leaf, leaf, lower, sub, lower, sub), ca: text(top, top), sent: "CN=web CN=lower CN=sub"},
		{name: "another root beside it", leaf: leaf, chain: text(leaf, lower, sub), ca: text(other, top), sent: "CN=web CN=lower CN=sub"},
		{name: "another root in the chain", leaf: leaf, chain: text(leaf, other, lower, sub, top), sent: "CN=web CN=lower CN=sub CN=top CN=other"},
		{name: "a certificate that signed itself", leaf: alone, chain: text(alone), sent: "CN=web"},
		{name: "a certificate that signed itself, as its CA", leaf: alone, chain: text(alone), ca: text(alone), sent: "CN=web"},
		{name: "a leaf with the name of its issuer", leaf: same.leaf(t), ca: text(same), sent: "CN=web"},
		{name: "a leaf with the name of its issuer, which ends first", leaf: sign(t, ca("web", ends(10*day)), nil, newKey(t)), sent: "CN=web"},

		{name: "an unrelated CA", leaf: leaf, chain: text(leaf, lower, sub), ca: text(other), sent: "CN=web CN=lower CN=sub", problems: "the issuer's CA CN=other is not above the certificate"},
		{name: "a CA with the name of another", leaf: leaf, chain: text(leaf, lower, sub), ca: text(namesake), sent: "CN=web CN=lower CN=sub", problems: "the issuer's CA CN=top is not above"},
		{name: "a CA that only the signature tells from another", leaf: unnamed, ca: text(plainNamesake), sent: "CN=web", problems: "the issuer's CA CN=plain is not above"},
		{name: "a CA and its namesake", leaf: unnamed, ca: text(plainNamesake, plain), sent: "CN=web"},
		{name: "a CA that can't be parsed", leaf: leaf, chain: text(leaf, lower, sub), ca: old, sent: "CN=web CN=lower CN=sub", problems: "CN=old can't be parsed"},
		{name: "a CA and one that can't be parsed", leaf: leaf, chain: text(leaf, lower, sub), ca: old + text(top), sent: "CN=web CN=lower CN=sub", problems: "CN=old can't be parsed"},
		{name: "an intermediate that can't be parsed", leaf: leaf, chain: text(leaf) + old + text(top), sent: "CN=web CN=old CN=top", problems: "CN=old can't be parsed"},

		{name: "an intermediate that ends soon", leaf: soon.leaf(t), chain: text(soon), ca: text(top), sent: "CN=web CN=soon", end: 10 * time.Minute},
		{name: "an intermediate that ends soon, without a root", leaf: soon.leaf(t), chain: text(soon), sent: "CN=web CN=soon", end: 10 * time.Minute},
		{name: "an intermediate that ends soon, among the CAs", leaf: soon.leaf(t), ca: text(soon, top), sent: "CN=web", end: 10 * time.Minute},
		{name: "an intermediate that is over", leaf: over.leaf(t, begins(-time.Hour)), chain: text(over), ca: text(top), sent: "CN=web CN=over", end: -time.Minute},
		{name: "an intermediate that was over before", leaf: over.leaf(t, begins(0)), chain: text(over), ca: text(top), sent: "CN=web CN=over", want: "CN=over expired at 2026-06-01T11:59:00Z, before the certificate begins at 2026-06-01T12:00:00Z"},
		{name: "a root that ends first", leaf: root(t, "r", ends(day)).leaf(t), sent: "CN=web"},
		{name: "a root that is over", leaf: ended.leaf(t, begins(-time.Hour)), ca: text(ended), sent: "CN=web", end: -time.Minute},
		{name: "a root that is over, and was renewed", leaf: ended.leaf(t), ca: text(ended, renewed), sent: "CN=web"},
		{name: "two ways, of which one ends later", leaf: twice, chain: text(short, long), ca: text(top, other), sent: "CN=web CN=sub CN=sub", end: 60 * day},
		{name: "two ways, the other way around", leaf: twice, chain: text(long, short), ca: text(top, other), sent: "CN=web CN=sub CN=sub", end: 60 * day},
		{name: "two ways, of which one is over", leaf: twice, chain: text(cross(top, ends(-time.Hour)), long), ca: text(top), sent: "CN=web CN=sub CN=sub", end: 60 * day, problems: "the issuer's CA CN=top is not above the certificate"},
		{name: "two ways, of which the later one has not begun", leaf: twice, chain: text(short, cross(other, begins(time.Hour), ends(80*day))), sent: "CN=web CN=sub CN=sub", end: 30 * day},
		{name: "an intermediate that has not begun", leaf: later.leaf(t), chain: text(later), ca: text(top), sent: "CN=web CN=later"},

		{name: "an unrelated intermediate", leaf: leaf, chain: text(other.under(t, "stranger")), ca: text(other), sent: "CN=web CN=stranger", want: "the certificate chain is broken: the issuer of the certificate is missing, and CN=stranger did not sign it"},
		{name: "an intermediate with the name of another", leaf: leaf, chain: text(top.under(t, "lower")), ca: text(top), sent: "CN=web CN=lower", want: "the certificate chain is broken: the issuer of the certificate is missing"},
		{name: "an intermediate with name and key identifier of another", leaf: top.under(t, "x", unknown).leaf(t), chain: text(top.under(t, "x", unknown)), ca: text(top), sent: "CN=web CN=x", want: "does not hold"},
		// Peers that have the root, or the certificate in the gap, accept these (crypto/x509, and RFC 8446, section 4.4.2,
		// for what is not on the path): only the leaf's own issuer must come along, if anything does.
		{name: "a gap", leaf: leaf, chain: text(lower, top), sent: "CN=web CN=lower CN=top", problems: "the issuer of CN=lower is missing, and CN=top did not sign it"},
		{name: "a gap, and the root in both places", leaf: leaf, chain: text(lower, top), ca: text(top), sent: "CN=web CN=lower CN=top", problems: "the issuer of CN=lower is missing, and CN=top did not sign it: peers that lack it refuse the certificate; the issuer's CA CN=top is not above"},
		{name: "a gap right above the leaf", leaf: leaf, chain: text(sub, top), sent: "CN=web CN=sub CN=top", want: "the certificate chain is broken: the issuer of the certificate is missing, and CN=sub did not sign it"},
		{name: "a gap right above the leaf, and no root", leaf: leaf, chain: text(sub), sent: "CN=web CN=sub", want: "the certificate chain is broken: the issuer of the certificate is missing, and CN=sub did not sign it"},
		{name: "another intermediate of a root that is not sent", leaf: flat.leaf(t), chain: text(flat, soon), sent: "CN=web CN=flat CN=soon", problems: "the issuer of CN=flat is missing, and CN=soon did not sign it"},
		{name: "another intermediate, before that of a root that is not sent", leaf: flat.leaf(t), chain: text(soon, flat), sent: "CN=web CN=flat CN=soon", problems: "the issuer of CN=flat is missing, and CN=soon did not sign it"},
		{name: "another intermediate of a root that is sent", leaf: flat.leaf(t), chain: text(flat, soon, top), sent: "CN=web CN=flat CN=top CN=soon"},
		{name: "another intermediate of the issuer's CA", leaf: flat.leaf(t), chain: text(flat, soon), ca: text(top), sent: "CN=web CN=flat CN=soon"},
		{name: "a gap before the CA", leaf: leaf, chain: text(lower), ca: text(top), sent: "CN=web CN=lower", problems: "the issuer's CA CN=top is not above the certificate"},
		{name: "names that its issuer may not sign", leaf: narrow.leaf(t), chain: text(narrow), ca: text(top), sent: "CN=web CN=narrow", want: "is not permitted by any constraint"},
		{name: "names that its issuer may sign", leaf: narrow.leaf(t, func(c *x509.Certificate) { c.DNSNames = []string{"web.corp.example"} }), chain: text(narrow), ca: text(top), sent: "CN=web CN=narrow"},
		{name: "usages that its issuer may not give", leaf: mails.leaf(t), chain: text(mails), ca: text(top), sent: "CN=web CN=mails", want: "incompatible key usage"},
		{name: "a usage that its issuer may give, and one that it may not", leaf: servers.leaf(t), chain: text(servers), ca: text(top), sent: "CN=web CN=servers"},
		{name: "an issuer that is no CA", leaf: noCA.leaf(t), chain: text(noCA), ca: text(top), sent: "CN=web CN=no CA", want: "does not hold"},
		{name: "an issuer below one that may have none", leaf: below.leaf(t), chain: text(below, flat), ca: text(top), sent: "CN=web CN=below flat CN=flat", want: "too many intermediates"},
		{name: "a leaf whose signature is damaged", leaf: party{parse(t, damaged(leaf.Raw)), leaf.key}, chain: text(lower, sub), ca: text(top), sent: "CN=web CN=lower CN=sub", want: "does not hold"},
		{name: "an intermediate whose signature is damaged", leaf: leaf, chain: text(lower) + block(damaged(sub.Raw)), ca: text(top), sent: "CN=web CN=lower CN=sub", want: "does not hold"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if !strings.Contains(row.chain, block(row.leaf.Raw)) {
				row.chain = block(row.leaf.Raw) + row.chain
			}
			c, err := chain.New(bundle(t, row.chain), bundle(t, row.ca), row.leaf.key.Public(), now)
			if err != nil {
				t.Fatal(err)
			}
			if !c.Leaf().Equal(row.leaf.Certificate) || sent(c) != row.sent {
				t.Errorf("sent %s, want %s", sent(c), row.sent)
			}
			if err := c.Verified(); (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
			if problems := strings.Join(c.Problems(), "; "); (problems == "") != (row.problems == "") || !strings.HasPrefix(problems, row.problems) {
				t.Errorf("problems %q, want %q", problems, row.problems)
			}
			end := row.leaf.NotAfter
			if row.end != 0 {
				end = now.Add(row.end)
			}
			if row.want == "" && !c.End().Equal(end) {
				t.Errorf("ends at %s (%s), want %s", c.End(), c.EndsWith(), end)
			}
		})
	}
}

// damaged flips a bit of the signature.
func damaged(der []byte) []byte {
	der = append([]byte(nil), der...)
	der[len(der)-1] ^= 1
	return der
}

func TestTheEndIsThatOfTheFirst(t *testing.T) {
	top := root(t, "top", ends(day))
	sub := top.under(t, "sub", begins(time.Minute))
	leaf := sub.leaf(t)
	c, err := chain.New(bundle(t, text(leaf, sub)), bundle(t, text(top)), leaf.key.Public(), now)
	if err != nil || c.Verified() != nil {
		t.Fatal(err, c.Verified())
	}
	if !c.End().Equal(top.NotAfter) || c.EndsWith().String() != "CN=top" || !c.Begin().Equal(sub.NotBefore) {
		t.Errorf("from %s to %s, by %s", c.Begin(), c.End(), c.EndsWith())
	}
}

func TestAllows(t *testing.T) {
	usages := func(all ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = all }
	}
	server, client := x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	for _, row := range []struct {
		name             string
		sub, leaf        []x509.ExtKeyUsage
		servers, clients bool
	}{
		{"both", nil, []x509.ExtKeyUsage{server, client}, true, true},
		{"one", nil, []x509.ExtKeyUsage{server}, true, false},
		{"no limit", nil, nil, true, true},
		{"any", []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, true, true},
		{"the issuer's limit", []x509.ExtKeyUsage{client}, []x509.ExtKeyUsage{server, client}, false, true},
	} {
		top := root(t, "top")
		sub := top.under(t, "sub", usages(row.sub...))
		leaf := sub.leaf(t, usages(row.leaf...))
		c, err := chain.New(bundle(t, text(leaf, sub)), bundle(t, text(top)), leaf.key.Public(), now)
		if err != nil || c.Allows(server) != row.servers || c.Allows(client) != row.clients {
			t.Errorf("%s: servers %v, clients %v (%v)", row.name, c.Allows(server), c.Allows(client), err)
		}
	}
}

func TestWhatIsNoChain(t *testing.T) {
	top := root(t, "top")
	leaf := top.leaf(t)
	for name, row := range map[string]struct{ text, want string }{
		"another key":                   {text(leaf), "the certificate is for another key than ours"},
		"a leaf that can't be parsed":   {block(negative(t, "web")), "the certificate is for another key than ours, or it is this one, which can't be parsed: CN=web: x509: negative serial number"},
		"more than peers would take in": {text(leaf) + text(root(t, "a", padded(60000)), root(t, "b", padded(60000)), root(t, "c", padded(60000)), root(t, "d", padded(60000))), "bytes of PEM: the limit is 262144"},
	} {
		key := newKey(t)
		if strings.HasPrefix(name, "more") {
			key = leaf.key.(*ecdsa.PrivateKey)
		}
		if _, err := chain.New(bundle(t, row.text), nil, key.Public(), now); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// crypto/x509 checks no signature with SHA-1: that of a root does not count, and peers refuse that of an intermediate.
func TestSHA1(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sha1 := func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA }
	old := sign(t, ca("old", sha1), nil, key)
	sub := old.under(t, "sub")
	weak := old.under(t, "weak", sha1)
	for name, row := range map[string]struct {
		leaf, sub party
		holds     bool
	}{"a root": {sub.leaf(t), sub, true}, "an intermediate": {weak.leaf(t), weak, false}} {
		c, err := chain.New(bundle(t, text(row.leaf, row.sub)), bundle(t, text(old)), row.leaf.key.Public(), now)
		if err != nil || (c.Verified() == nil) != row.holds {
			t.Errorf("%s: %v", name, c.Verified())
		}
	}
}

// Whoever answers can make any number of certificates with one name. What is done with them is bounded.
func TestManyOfOneName(t *testing.T) {
	top := root(t, "top")
	sub := top.under(t, "sub", func(c *x509.Certificate) { c.SubjectKeyId = []byte{1} })
	leaf := sub.leaf(t)
	all := text(leaf)
	for range 100 {
		all += text(top.under(t, "sub", func(c *x509.Certificate) { c.SubjectKeyId = []byte{1} }))
	}
	var mesh string // Each may be the issuer of each other.
	for range 100 {
		mesh += text(top.under(t, "top", func(c *x509.Certificate) { c.SubjectKeyId, c.AuthorityKeyId = nil, nil }))
	}
	for name, answer := range map[string]string{"above the leaf": all, "above each other": text(leaf, sub) + mesh} {
		begin := time.Now()
		c, err := chain.New(bundle(t, answer), bundle(t, text(top)), leaf.key.Public(), now)
		if took := time.Since(begin); err != nil || took > 5*time.Second {
			t.Errorf("%s: %s (%v, %v)", name, took, err, c.Verified())
		}
	}
}

// A key of any size is bounded before anything is verified with it.
func TestHugeKeys(t *testing.T) {
	begin := time.Now()
	if _, err := chain.Parse([]byte(text(huge(t, 64<<10)))); err == nil || time.Since(begin) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(begin))
	}
}

// The IP of a pod is a name that constraints may be about, too.
func TestConstraintsOfAddresses(t *testing.T) {
	_, network, err := net.ParseCIDR("10.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	top := root(t, "top")
	sub := top.under(t, "sub", func(c *x509.Certificate) { c.PermittedIPRanges = []*net.IPNet{network} })
	for ip, holds := range map[string]bool{"10.1.2.3": true, "192.168.1.1": false} {
		leaf := sub.leaf(t, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.ParseIP(ip)} })
		c, err := chain.New(bundle(t, text(leaf, sub)), bundle(t, text(top)), leaf.key.Public(), now)
		if err != nil || (c.Verified() == nil) != holds {
			t.Errorf("%s: %v", ip, c.Verified())
		}
	}
}
