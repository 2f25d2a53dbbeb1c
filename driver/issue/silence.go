package issue

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"

	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// IssuerOf returns a name of the volume's issuer that no other issuer has. By the convention of cert-manager's issuers
// the kind of one that is not in a namespace has "Cluster" in its name.
func IssuerOf(spec volume.Volume) string {
	issuer, namespace := spec.Issuer, spec.Pod.Namespace
	if strings.Contains(issuer.Kind, "Cluster") {
		namespace = ""
	}
	return strings.Join([]string{issuer.Group, issuer.Kind, namespace, issuer.Name}, "\n")
}

// silence has the issuers that let a renewal wait until its time was over and have not answered since, by the ids of
// the volumes that waited. The zero silence is ready for use.
type silence struct {
	mu      sync.Mutex
	issuers map[string]string
}

// begin notes that a volume waited in vain.
func (s *silence) begin(id, issuer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.issuers == nil {
		s.issuers = map[string]string{}
	}
	s.issuers[id] = issuer
}

// end notes that an issuer has answered.
func (s *silence) end(issuer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.issuers, func(_, other string) bool { return other == issuer })
}

// forget removes the state of a volume.
func (s *silence) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.issuers, id)
}

// has reports whether an issuer is silent.
func (s *silence) has(issuer string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, silent := range s.issuers {
		if silent == issuer {
			return true
		}
	}
	return false
}

// noteAnswer notes whether a volume's issuer has answered.
func (i *Issuer) noteAnswer(ctx context.Context, v *store.Volume, err error) {
	issuer := IssuerOf(v.Spec())
	switch {
	case err == nil || signer.KindOf(err).Ends():
		i.silent.end(issuer)
	case signer.KindOf(err) != signer.NotYet: // It may not have got the request.
	case errors.Is(ctx.Err(), context.DeadlineExceeded) && v.HasPair() && !v.Removed():
		i.silent.begin(v.ID(), issuer)
	}
}

// IsSilent reports whether the last request of the volume was not answered, or the last one that its issuer got. A
// request that could not be made does not count: the next one needs as long to be made.
func (i *Issuer) IsSilent(v *store.Volume) bool {
	failure := v.Record().Failure
	return failure != nil && failure.Waiting > 0 && failure.Kind == signer.NotYet.String() ||
		i.silent.has(IssuerOf(v.Spec()))
}
