package authority

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/mayfly-csi/mayfly/signer/ca"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// leavingKey is the annotation that says until when a bundle has roots that are not their CA's any more: by the SHA-256
// of the certificate, in JSON.
const leavingKey = "csi.mayfly.dev/leaving"

// A roll is the roots of a bundle.
type roll struct {
	roots   []*x509.Certificate
	leaving map[string]time.Time // Of those that are not the CA's any more.
}

// readRoll returns the roll of a bundle. Roots of which the annotation is not understood leave from now on.
func readRoll(bundle *certificatesv1.ClusterTrustBundle) (r roll, err error) {
	if bundle.Spec.TrustBundle == "" {
		return r, nil
	}
	if r.roots, err = ca.Decode([]byte(bundle.Spec.TrustBundle)); err != nil {
		return r, fmt.Errorf("read ClusterTrustBundle %s: %w", bundle.Name, err)
	}
	if err := json.Unmarshal([]byte(bundle.Annotations[leavingKey]), &r.leaving); err != nil {
		r.leaving = nil
	}
	return r, nil
}

// turn returns the roll after now, and when the next root leaves it; the zero time: none does. Those of the CA come
// first. The others stay for as long as a certificate that the CA signed may last, or until they are over themselves.
func (r roll) turn(current []*x509.Certificate, now time.Time, stay time.Duration) (next roll, wakeAt time.Time) {
	next = roll{roots: unite(current), leaving: map[string]time.Time{}}
	for _, root := range r.roots {
		if ca.Has(next.roots, root) {
			continue
		}
		until := r.until(root, now, stay)
		if !now.Before(until) {
			continue
		}
		next.roots = append(next.roots, root)
		next.leaving[fingerprint(root)] = until
		wakeAt = soonest(wakeAt, until)
	}
	return next, wakeAt
}

// until returns when a root leaves that is not the CA's any more: after a stay at most, whatever somebody wrote. Times
// are written in whole seconds.
func (r roll) until(root *x509.Certificate, now time.Time, stay time.Duration) time.Time {
	latest := now.Add(stay).UTC().Truncate(time.Second).Add(time.Second)
	at, known := r.leaving[fingerprint(root)]
	if !known || at.After(latest) {
		at = latest
	}
	if root.NotAfter.Before(at) {
		return root.NotAfter
	}
	return at
}

// write puts the roll into a bundle, and says whether that changed it.
func (r roll) write(bundle *certificatesv1.ClusterTrustBundle) (changed bool, err error) {
	text, leaving := string(chain.Encode(r.roots...)), ""
	if len(r.leaving) > 0 {
		encoded, err := json.Marshal(r.leaving)
		if err != nil {
			return false, fmt.Errorf("write down which roots leave: %w", err)
		}
		leaving = string(encoded)
	}
	changed = text != bundle.Spec.TrustBundle || leaving != bundle.Annotations[leavingKey]
	bundle.Spec.TrustBundle = text
	if leaving == "" {
		delete(bundle.Annotations, leavingKey)
		return changed, nil
	}
	if bundle.Annotations == nil {
		bundle.Annotations = map[string]string{}
	}
	bundle.Annotations[leavingKey] = leaving
	return changed, nil
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// soonest returns the earlier of two times, of which a zero one is never.
func soonest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
