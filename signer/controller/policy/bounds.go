package policy

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// bounds are the lifetimes and usages that may be asked for where no policy says which.
type bounds struct {
	least, most time.Duration
	usages      []signer.Usage
}

// boundsOf returns those of a dialect: they leave room for what its volumes have by default. csi-driver asks for 2,160
// hours by default, csi-driver-spiffe for one (cert-manager csi-driver pkg/apis/defaults, csi-driver-spiffe
// internal/flags).
func boundsOf(d spec.Dialect) bounds {
	const day = 24 * time.Hour
	usages := []signer.Usage{"digital signature", "key encipherment", "key agreement", "server auth", "client auth"}
	switch d {
	case spec.CSIDriver:
		return bounds{10 * time.Second, 90 * day, append(usages, "signing", "data encipherment")}
	case spec.CSIDriverSPIFFE:
		return bounds{10 * time.Second, day, usages}
	}
	return bounds{5 * time.Minute, day, usages}
}

// against returns what the bounds have against a volume. A CA's usages are not theirs to say.
func (b bounds) against(v spec.Spec) (problems problem.List) {
	switch {
	case v.Duration > b.most:
		problems = append(problems, fmt.Errorf("duration %s is longer than %s", v.Duration, b.most))
	case v.Duration < b.least:
		problems = append(problems, fmt.Errorf("duration %s is shorter than %s", v.Duration, b.least))
	}
	for _, usage := range v.Usages {
		if !slices.Contains(b.usages, usage) && !slices.Contains(authoritative(), usage) {
			problems = append(problems, fmt.Errorf("key usage %q is not allowed: %s", usage, allowed(b.usages)))
		}
	}
	return problems
}

// annotations returns what there is against the annotations that the pod's author has given to the request: issuers act
// upon some. Those of a profile are the operator's.
func annotations(v spec.Spec, allowedKeys []pattern) (problems problem.List) {
	for _, key := range slices.Sorted(maps.Keys(v.Annotations)) {
		value, profiled := v.Profile[key]
		operators := profiled && value == v.Annotations[key]
		own := key == v.Dialect.IdentityAnnotation()
		if !operators && !own && !covered(allowedKeys, key) {
			problems = append(problems, fmt.Errorf("annotation %q is not allowed: %s", key, allowed(allowedKeys)))
		}
	}
	return problems
}
