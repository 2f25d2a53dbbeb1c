package volume

import "github.com/mayfly-csi/mayfly/signer/spec"

// KeepRequests returns how many finished requests of a volume are kept where the operator does not say.
func KeepRequests(d spec.Dialect) int {
	if d == spec.CSIDriver || d == spec.CSIDriverSPIFFE {
		return 1
	}
	return 0
}

// TrustAsIs reports whether the text of a file of CA certificates is passed on as it is, where a volume has no other
// source.
func TrustAsIs(d spec.Dialect) bool { return d == spec.CSIDriverSPIFFE }

// overlooks reports whether attributes that nobody knows are no error, as in cert-manager's drivers.
func overlooks(d spec.Dialect) bool { return d == spec.CSIDriver || d == spec.CSIDriverSPIFFE }
