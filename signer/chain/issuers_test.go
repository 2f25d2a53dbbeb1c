package chain_test

import (
	"bytes"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/signer/chain"
)

// An answer is the status of a CertificateRequest.
type answer struct{ certificate, ca string }

// certManager answers as three of cert-manager's issuers do: CA (pkg/util/pki/generate.go, SignCSRTemplate), Vault
// (internal/vault/vault.go, extractCertificatesFromVaultCertificateSecret) and Venafi
// (pkg/controller/certificaterequests/venafi/venafi.go). They put what they have in order, each once; the root, or
// else the highest intermediate, is the CA (pkg/util/pki/parse_certificate_chain.go, ParseSingleCertificateChain).
// The leaf is first here.
func certManager(all ...party) answer {
	top := all[len(all)-1]
	switch isRoot := top.CheckSignatureFrom(top.Certificate) == nil; {
	case len(all) == 1:
		return answer{text(all...), ""}
	case isRoot:
		return answer{text(all[:len(all)-1]...), text(top)}
	}
	return answer{text(all...), text(top)}
}

// googleCAS answers as cert-manager/google-cas-issuer does (pkg/controllers/signer.go, extractCertAndCA): the last
// certificate of the chain is the CA. With caFetchMode PoolCAs the CA is each root of the pool, of which the
// certificate has one.
func googleCAS(leaf party, chain []party, pool ...party) answer {
	a := answer{strings.TrimSpace(text(leaf)) + "\n", strings.TrimSpace(text(chain[len(chain)-1])) + "\n"}
	for _, one := range chain[:len(chain)-1] {
		a.certificate += strings.TrimSpace(text(one)) + "\n"
	}
	if len(pool) > 0 {
		a.ca = text(pool...)
	}
	return a
}

// awsPCA answers as cert-manager/aws-privateca-issuer does (pkg/aws/pca.go, Sign and splitRootCACertificate).
func awsPCA(leaf party, chain ...party) answer {
	return answer{strings.TrimSpace(text(leaf)) + "\n" + text(chain[:len(chain)-1]...), text(chain[len(chain)-1])}
}

// step answers as smallstep/step-issuer does (provisioners/step.go, Sign): the CA is each root that step-ca knows.
func step(leaf, intermediate party, roots ...party) answer {
	return answer{text(leaf, intermediate), text(roots...)}
}

// acme answers as cert-manager's ACME issuer does, which passes on what the server sends
// (pkg/controller/certificaterequests/acme/acme.go): no CA, and an empty line between certificates where the server
// is Let's Encrypt's.
func acme(all ...party) answer {
	var texts []string
	for _, one := range all {
		texts = append(texts, text(one))
	}
	return answer{strings.Join(texts, "\n"), ""}
}

// TestIssuers has each issuer as it answers, and what is in force then.
func TestIssuers(t *testing.T) {
	root1, root2 := root(t, "root 1"), root(t, "root 2")
	sub := root1.under(t, "sub")
	lower := sub.under(t, "lower")
	byRoot, bySub, byLower := root1.leaf(t), sub.leaf(t), lower.leaf(t)
	self := sign(t, &x509.Certificate{DNSNames: []string{"web.example"}, NotBefore: now, NotAfter: now.Add(90 * day)}, nil, newKey(t))
	gone := root(t, "root 0", ends(-time.Hour))
	// Let's Encrypt's chain, as it was until 2024: ISRG Root X1, certified by DST Root CA X3, which was over long
	// before.
	x3 := root(t, "DST Root CA X3", ends(-100*day))
	x1 := root(t, "ISRG Root X1")
	x1Cross := sign(t, ca("ISRG Root X1", ends(200*day)), &x3, x1.key)
	x1Over := sign(t, ca("ISRG Root X1", ends(-day)), &x3, x1.key)
	r3 := x1.under(t, "R3")
	byR3 := r3.leaf(t)
	soon := root1.under(t, "soon", ends(20*day))

	for _, row := range []struct {
		name string
		leaf party
		answer
		sent  string
		last  string // The top of the path.
		ca    string // CA certificates that the pod gets.
		end   time.Time
		want  string
		words string
	}{
		{name: "CA, a root", leaf: byRoot, answer: certManager(byRoot, root1), sent: "CN=web", ca: "CN=root 1"},
		{name: "CA, an intermediate with its root", leaf: bySub, answer: certManager(bySub, sub, root1), sent: "CN=web CN=sub", ca: "CN=root 1"},
		{name: "CA, an intermediate alone", leaf: bySub, answer: certManager(bySub, sub), sent: "CN=web CN=sub", ca: "CN=sub"},
		{name: "CA, two intermediates without a root", leaf: byLower, answer: certManager(byLower, lower, sub), sent: "CN=web CN=lower CN=sub", ca: "CN=sub"},
		{name: "CA, an intermediate that ends first", leaf: soon.leaf(t), answer: answer{text(soon), text(root1)}, sent: "CN=web CN=soon", ca: "CN=root 1", end: soon.NotAfter},
		{name: "SelfSigned", leaf: self, answer: answer{text(self), text(self)}, sent: "", ca: ""},
		{name: "Vault, with ca_chain", leaf: byLower, answer: certManager(byLower, lower, sub, root1), sent: "CN=web CN=lower CN=sub", ca: "CN=root 1"},
		{name: "Vault, a root mount", leaf: byRoot, answer: certManager(byRoot, root1), sent: "CN=web", ca: "CN=root 1"},
		{name: "Vault, an intermediate mount without the root", leaf: bySub, answer: certManager(bySub, sub), sent: "CN=web CN=sub", ca: "CN=sub"},
		{name: "Venafi, with the chain", leaf: byLower, answer: certManager(byLower, lower, sub, root1), sent: "CN=web CN=lower CN=sub", ca: "CN=root 1"},
		{name: "Venafi, the leaf alone", leaf: byRoot, answer: certManager(byRoot), sent: "CN=web", ca: ""},
		{name: "Google CAS, the issuing CA", leaf: byLower, answer: googleCAS(byLower, []party{lower, sub, root1}), sent: "CN=web CN=lower CN=sub", ca: "CN=root 1"},
		{name: "Google CAS, a root CA", leaf: byRoot, answer: googleCAS(byRoot, []party{root1}), sent: "CN=web", ca: "CN=root 1"},
		{name: "Google CAS, a subordinate CA of a root elsewhere", leaf: bySub, answer: googleCAS(bySub, []party{sub}), sent: "CN=web", ca: "CN=sub"},
		{name: "Google CAS, the pool's CAs", leaf: bySub, answer: googleCAS(bySub, []party{sub, root1}, root2, root1), sent: "CN=web CN=sub", ca: "CN=root 2 CN=root 1"},
		{name: "Google CAS, the pool's CAs are others", leaf: bySub, answer: googleCAS(bySub, []party{sub}, root2), sent: "CN=web", ca: "CN=root 2", words: "the issuer's CA CN=root 2 is not above the certificate"},
		{name: "AWS PCA, a subordinate CA", leaf: byLower, answer: awsPCA(byLower, lower, sub, root1), sent: "CN=web CN=lower CN=sub", ca: "CN=root 1"},
		{name: "AWS PCA, a root CA", leaf: byRoot, answer: awsPCA(byRoot, root1), sent: "CN=web", ca: "CN=root 1"},
		{name: "step", leaf: bySub, answer: step(bySub, sub, root1), sent: "CN=web CN=sub", ca: "CN=root 1"},
		{name: "step, with an older root that is over", leaf: bySub, answer: step(bySub, sub, gone, root2, root1), sent: "CN=web CN=sub", ca: "CN=root 0 CN=root 2 CN=root 1"},
		{name: "ACME, up to a root that peers know", leaf: byR3, answer: acme(byR3, r3), sent: "CN=web CN=R3", ca: ""},
		{name: "ACME, up to a root that another certified", leaf: byR3, answer: acme(byR3, r3, x1Cross), sent: "CN=web CN=R3 CN=ISRG Root X1", ca: ""},
		{name: "ACME, up to a root that another certified, which is over", leaf: byR3, answer: acme(byR3, r3, x1Cross, x3), sent: "CN=web CN=R3 CN=ISRG Root X1 CN=DST Root CA X3", ca: "", want: "CN=DST Root CA X3 expired at"},
		{name: "ACME, with both", leaf: byR3, answer: acme(byR3, r3, x1Over, x1), sent: "CN=web CN=R3 CN=ISRG Root X1 CN=ISRG Root X1", ca: ""},
		{name: "ACME, up to a root whose certificate by another is over", leaf: byR3, answer: acme(byR3, r3, x1Over), sent: "CN=web CN=R3 CN=ISRG Root X1", ca: "", want: "CN=ISRG Root X1 expired at"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if !strings.Contains(row.certificate, block(row.leaf.Raw)) {
				row.certificate = block(row.leaf.Raw) + row.certificate
			}
			ca := bundle(t, row.answer.ca)
			c, err := chain.New(bundle(t, row.certificate), ca, row.leaf.key.Public(), now)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Verified(); (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
			if problems := strings.Join(c.Problems(), "; "); (problems == "") != (row.words == "") || !strings.HasPrefix(problems, row.words) {
				t.Errorf("problems %q, want %q", problems, row.words)
			}
			var roots []string
			for _, one := range ca {
				roots = append(roots, one.String())
			}
			if row.leaf.Equal(self.Certificate) { // It has no subject.
				row.sent, row.ca = ca[0].String(), ca[0].String()
			}
			if sent(c) != row.sent || strings.Join(roots, " ") != row.ca {
				t.Errorf("sent %s, CA %s", sent(c), roots)
			}
			if !bytes.HasPrefix(c.Certificates().Encode(), []byte(block(row.leaf.Raw))) {
				t.Error("the leaf is not the first")
			}
			if row.end.IsZero() {
				row.end = row.leaf.NotAfter
			}
			if !c.End().Equal(row.end) {
				t.Errorf("ends at %s, by %s", c.End(), c.EndsWith())
			}
		})
	}
}
