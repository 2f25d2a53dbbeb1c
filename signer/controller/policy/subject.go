package policy

import (
	"crypto/x509/pkix"
	"errors"
	"fmt"

	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// A subject is what a CertificatePolicy can speak of in a volume's subject.
type subject struct {
	commonName    string
	organizations []string
}

// parseSubject finds in a volume's subject what a CertificatePolicy can speak of. All else is a problem.
func parseSubject(v spec.Spec) (s subject, problems problem.List) {
	all, err := attributes(v)
	if err != nil {
		return s, problem.List{err}
	}
	for _, a := range all {
		if err := s.take(a); err != nil {
			problems = append(problems, err)
		}
	}
	return s, problems
}

func (s *subject) take(a pkix.AttributeTypeAndValue) error {
	value, ok := a.Value.(string)
	switch {
	case ok && a.Type.Equal(organization):
		s.organizations = append(s.organizations, value)
	case ok && a.Type.Equal(commonName) && value != "" && s.commonName == "":
		s.commonName = value
	case a.Type.Equal(commonName): // An expression would see one of several.
		return errors.New("subject: there must be one common name")
	default:
		return fmt.Errorf("subject: no policy can allow %s: only a common name and organizations", pkix.RDNSequence{{a}})
	}
	return nil
}
