package spec

import (
	"slices"

	"github.com/mayfly-csi/mayfly/signer/problem"
)

// The limits of what a pod may ask for. They bound the time that [Parse] takes, a volume's record, and what the API
// server and the signer are sent.
const (
	maxAttributes = 256
	// maxTotal is in bytes, and what an object's annotations may have (k8s.io/apimachinery pkg/api/validation,
	// TotalAnnotationSizeLimitB).
	maxTotal    = 256 << 10
	maxValue    = 64 << 10 // Bytes of one attribute, before and after its variables are replaced.
	maxElements = 1000     // Elements of a list, and variables of a value.

	maxName     = 253 // Bytes of a pod's name and the like: a DNS subdomain (k8s.io/apimachinery pkg/util/validation).
	maxProfiles = 1000
	// maxProfilesSize is in bytes, and takes a quarter of a second.
	maxProfilesSize = 512 << 10
)

// checkTotal bounds all attributes. Those of the kubelet count by their size alone: without podInfoOnMount they are
// what the pod says.
func checkTotal(attributes map[string]string) error {
	for _, key := range kubeletKeys() {
		if err := problem.CheckSize(attributes[key], maxName); err != nil {
			return problem.In(key, err)
		}
	}
	n, size := 0, 0
	for key, value := range attributes {
		size += len(key) + len(value)
		if !slices.Contains(kubeletKeys(), key) {
			n++
		}
	}
	switch {
	case n > maxAttributes:
		return problem.New("volumeAttributes", "are %d: at most %d", n, maxAttributes)
	case size > maxTotal:
		return problem.New("volumeAttributes", "have %d bytes, with those of the kubelet: at most %d", size, maxTotal)
	}
	return nil
}

func checkValue(value string) error { return problem.CheckSize(value, maxValue) }
