package review

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/yaml"
	kubeyaml "sigs.k8s.io/yaml"

	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
)

// ReadPolicies reads the CertificatePolicies of a file: documents of YAML, or JSON.
func ReadPolicies(file io.Reader) (policies []v1alpha1.CertificatePolicy, err error) {
	documents := yaml.NewYAMLReader(bufio.NewReader(file))
	for n := 1; ; n++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		if empty(document) {
			continue
		}
		p, err := readPolicy(document)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		policies = append(policies, p)
	}
	if len(policies) == 0 {
		return nil, errors.New("there is no CertificatePolicy")
	}
	return policies, nil
}

// empty reports whether a document has comments at most.
func empty(document []byte) bool {
	for line := range bytes.Lines(document) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' && !bytes.Equal(line, []byte("---")) {
			return false
		}
	}
	return true
}

func readPolicy(document []byte) (p v1alpha1.CertificatePolicy, err error) {
	var is struct{ APIVersion, Kind string }
	if err := kubeyaml.Unmarshal(document, &is); err != nil {
		return p, oneLine(err)
	}
	if is.APIVersion != v1alpha1.GroupVersion().String() || is.Kind != v1alpha1.Kind {
		return p, fmt.Errorf("it is a %q of %q, and must be a %s of %s", is.Kind, is.APIVersion, v1alpha1.Kind, v1alpha1.GroupVersion())
	}
	if err := kubeyaml.UnmarshalStrict(document, &p); err != nil {
		return p, oneLine(err)
	}
	if p.Name == "" {
		return p, errors.New("metadata.name is missing")
	}
	return p, nil
}

func oneLine(err error) error { return errors.New(strings.Join(strings.Fields(err.Error()), " ")) }

// Merge returns the policies with others added, or put in the place of those of their name.
func Merge(policies, others []v1alpha1.CertificatePolicy) []v1alpha1.CertificatePolicy {
	merged := slices.Clone(policies)
	for _, other := range others {
		same := func(p v1alpha1.CertificatePolicy) bool { return p.Name == other.Name }
		merged = append(slices.DeleteFunc(merged, same), other)
	}
	return merged
}
