package driver_test

import (
	"context"
	"slices"
	"testing"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/signer"
)

// withIssuer restarts the driver with another issuer for volumes that name none.
func (n *node) withIssuer(name string) {
	n.t.Helper()
	before := n.edit
	n.edit = func(c *driver.Config) {
		before(c)
		c.Defaults.IssuerName = name
	}
	n.restart()
}

// lastIssuer returns the issuer that was asked last.
func (n *node) lastIssuer() string {
	asked := n.signer.asked()
	return asked[len(asked)-1].Issuer.Name
}

// Where the flags of now don't fit a volume, those count by which it got its last certificate, and not those by which
// it got its first.
func TestTheLastFlagsThatFitCount(t *testing.T) {
	n := newNode(t, func(c *driver.Config) { c.Defaults.IssuerName = "one" })
	v := web()
	delete(v.Attributes, "csi.mayfly.dev/issuer-name")
	target := n.publish(v)
	for _, step := range []struct{ flag, want string }{{"two", "two"}, {"", "two"}, {"three", "three"}} {
		n.withIssuer(step.flag)
		before := pair(t, target)
		n.renew(v)
		until(t, "a renewal", func() bool { return !pair(t, target).Equal(before) })
		if got := n.lastIssuer(); got != step.want {
			t.Errorf("issuer %q: asked was %s, want %s", step.flag, got, step.want)
		}
	}
}

// An issuer that never answers is left when the driver starts again with another one, and its request does not stay.
func TestAFlagWithAnotherIssuerOvertakesAnAttempt(t *testing.T) {
	n := newNode(t, func(c *driver.Config) { c.Defaults.IssuerName, c.KeepRequests = "typo", new(2) })
	n.signer.from(func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		if req.Issuer.Name == "typo" {
			return signer.Issued{}, signer.Errorf(signer.NotYet, "there is no issuer %s", req.Issuer.Name)
		}
		return ca.Sign(ctx, req)
	})
	v := web()
	delete(v.Attributes, "csi.mayfly.dev/issuer-name")
	n.fails(v, "there is no issuer typo")
	n.withIssuer("right")
	n.publish(v)
	first, asked := n.signer.asked()[0].Attempt.ID, n.signer.asked()
	if first == asked[len(asked)-1].Attempt.ID {
		t.Error("the attempt went on")
	}
	until(t, "its request is deleted", func() bool { return slices.Contains(n.signer.forgot(), first) })
}
