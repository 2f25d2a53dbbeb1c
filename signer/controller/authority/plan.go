package authority

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/mayfly-csi/mayfly/signer/ca"
)

// A Plan is how the controller's own CA is rotated.
//
//	begin          prepare     promote                     end
//	  |---------------|-----------|-------------------------|     this CA
//	                  |-----------|-------------------------|---  the next one
//	                     Ahead               Leaf
//
// This CA signs until promote, and is trusted until its end. The next one is trusted from prepare on, and signs from
// promote on.
//
// So whoever follows the bundle trusts a CA before it signs, and until the last certificate that it signed is over.
type Plan struct {
	Lifetime time.Duration // Of a CA.
	Leaf     time.Duration // The longest of what it signs: a CA that would end sooner does not sign any more.
	Ahead    time.Duration // For how long a CA is published before it signs.
}

// DefaultPlan returns the plan of a CA of a year, which is published for a day, signs for some nine months, and is
// trusted for the rest. The API server gives a PodCertificateRequest 91 days at most (k8s.io/kubernetes
// pkg/apis/certificates/validation).
func DefaultPlan() Plan {
	const day = 24 * time.Hour
	return Plan{Lifetime: 365 * day, Leaf: 91 * day, Ahead: day}
}

// Check returns what is wrong with the plan.
func (p Plan) Check() error {
	switch {
	case p.Leaf <= 0 || p.Ahead <= 0:
		return fmt.Errorf("certificates that last for %s, of a CA that is published %s before it signs: both must be "+
			"more than nothing", p.Leaf, p.Ahead)
	case p.Lifetime <= p.Leaf+p.Ahead:
		return fmt.Errorf("a CA that lasts for %s would never sign: it is published for %s before, and what it signs "+
			"may last for %s", p.Lifetime, p.Ahead, p.Leaf)
	}
	return nil
}

// A Step is what is done to a [State].
type Step string

// The steps.
const (
	Keep    Step = ""        // Nothing, until later.
	Begin   Step = "begin"   // There is no CA, or none that is not over: a new one signs at once.
	Prepare Step = "prepare" // The next one is made, and published.
	Promote Step = "promote" // The next one signs.
	Forget  Step = "forget"  // A root is over.
)

// Next returns the step that is due, or when one is.
func (p Plan) Next(s State, now time.Time) (due Step, at time.Time) {
	step, at := p.ahead(s, now)
	if !at.After(now) {
		return step, now
	}
	for _, root := range s.Roots {
		// The one that signs goes when another does.
		if root.NotAfter.Before(at) && !root.Equal(s.Signing.Certificate) {
			step, at = Forget, root.NotAfter
		}
	}
	if !at.After(now) {
		return step, now
	}
	return Keep, at
}

// ahead returns the next step of the CA that signs.
func (p Plan) ahead(s State, now time.Time) (Step, time.Time) {
	switch {
	case s.Signing == nil || over(s.Signing, now) && (s.Next == nil || over(s.Next, now)):
		return Begin, now
	case s.Next == nil:
		return Prepare, p.stop(s).Add(-p.Ahead)
	}
	return Promote, p.promoteAt(s)
}

// stop returns when the CA that signs should sign no more: what it signs could not last as long as it should.
func (p Plan) stop(s State) time.Time { return s.Signing.Certificate.NotAfter.Add(-p.Leaf) }

// promoteAt returns when the next CA signs: when the one before should stop, and not before it was published for a
// spell. One that is late, because no controller ran, takes that spell from the time in which the one before signs what
// is shorter, but for its last hour: less than that is no certificate (k8s.io/kubernetes
// pkg/apis/certificates/validation).
func (p Plan) promoteAt(s State) time.Time {
	at := s.Next.Certificate.NotBefore.Add(backdate + p.Ahead)
	if stop := p.stop(s); at.Before(stop) {
		at = stop
	}
	if last := s.Signing.Certificate.NotAfter.Add(-min(time.Hour, p.Leaf)); at.After(last) {
		at = last
	}
	return at
}

func over(c *ca.CA, now time.Time) bool { return !now.Before(c.Certificate.NotAfter) }

// backdate is how long before now a CA begins: certificates begin a little before now, too, and not before their CA.
const backdate = time.Hour

// Take returns the state after a step. Expired roots go with every step.
func (p Plan) Take(step Step, s State, now time.Time) (State, error) {
	ended := func(root *x509.Certificate) bool { return !now.Before(root.NotAfter) }
	s.Roots = slices.DeleteFunc(slices.Clone(s.Roots), ended)
	if s.Next != nil && over(s.Next, now) {
		s.Next = nil
	}
	switch step {
	case Begin, Prepare:
		made, err := ca.New("Mayfly CA "+now.UTC().Format(time.RFC3339), now.Add(-backdate), now.Add(p.Lifetime))
		if err != nil {
			return State{}, err
		}
		if step == Prepare {
			s.Next = &made
		} else {
			s.Signing, s.Next = &made, nil
		}
	case Promote:
		s.Signing, s.Next = s.Next, nil
	}
	for _, c := range []*ca.CA{s.Next, s.Signing} {
		if c != nil {
			s.Roots = unite(c.Roots, s.Roots)
		}
	}
	return s, nil
}
