package chain_test

import (
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/signer/chain"
)

// FuzzNew: whatever comes along with a leaf, in whatever order, what holds is what crypto/x509 accepts until the end
// that is said, and no longer.
func FuzzNew(f *testing.F) {
	top, other := root(f, "top"), root(f, "other", ends(50*day))
	sub, ended := top.under(f, "sub"), top.under(f, "ended", ends(-time.Minute))
	leaf := sub.leaf(f)
	pool := []party{
		leaf, sub, top, other, ended, root(f, "top"), top.under(f, "sub"),
		sign(f, ca("sub", ends(40*day)), &other, sub.key),
		sign(f, ca("sub", ends(-time.Minute)), &top, sub.key),
		sign(f, ca("sub", begins(time.Hour)), &top, sub.key),
		sign(f, ca("top"), &other, top.key),
		{Certificate: parse(f, damaged(sub.Raw))},
	}
	f.Add([]byte{0, 1, 130})
	f.Add([]byte{0, 1, 2})
	f.Add([]byte{7, 1, 0, 131, 130})
	f.Add([]byte{0, 8, 9, 10, 11, 133})
	f.Fuzz(func(t *testing.T, picks []byte) {
		var sent, ca chain.Bundle
		for _, pick := range picks[:min(len(picks), 12)] {
			c := chain.Of(pool[int(pick&127)%len(pool)].Certificate)
			if pick < 128 {
				sent = append(sent, c)
			} else {
				ca = append(ca, c)
			}
		}
		c, err := chain.New(sent, ca, leaf.key.Public(), now)
		if err != nil {
			if sent.Has(chain.Of(leaf.Certificate)) {
				t.Fatalf("the leaf is there: %v", err)
			}
			return
		}
		if !c.Leaf().Equal(leaf.Certificate) || !c.Certificates()[0].Equal(chain.Of(leaf.Certificate)) || len(c.Certificates()) != len(chain.Unite(sent)) {
			t.Errorf("of %d certificates %d are sent", len(chain.Unite(sent)), len(c.Certificates()))
		}
		slices.Reverse(sent)
		slices.Reverse(ca)
		again, err := chain.New(sent, ca, leaf.key.Public(), now)
		if err != nil || (again.Verified() == nil) != (c.Verified() == nil) || !again.End().Equal(c.End()) {
			t.Errorf("in another order: %v, %v until %s; before %v until %s", err, again.Verified(), again.End(), c.Verified(), c.End())
		}
		if c.Verified() != nil {
			return
		}
		options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: c.End(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
		if len(chain.Unite(sent, ca)) == 1 || ca.Has(chain.Of(leaf.Certificate)) {
			return // Nobody knows who is above, or the leaf itself is trusted.
		}
		for _, one := range chain.Unite(sent, ca) {
			if parsed, err := one.X509(); err == nil && !one.Equal(chain.Of(leaf.Certificate)) {
				options.Intermediates.AddCert(parsed)
				options.Roots.AddCert(parsed)
			}
		}
		if _, err := c.Leaf().Verify(options); err != nil && len(c.Problems()) == 0 {
			t.Errorf("at its end %s crypto/x509 says %v", c.End(), err)
		}
	})
}
