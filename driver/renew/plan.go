// Package renew knows when a volume's certificate is due: by pure functions of values and times, and by a queue that
// sleeps until then.
package renew

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// At returns when a certificate is renewed that was received at receivedAt and ends at notAfter: before its end, or
// after two thirds of the time from receipt if before is zero or not less than that time. Issuers backdate
// NotBefore, so it does not count.
//
// Volumes that were made together are spread over the last tenth of the wait. The spread is a function of the
// volume alone.
func At(id string, receivedAt, notAfter time.Time, before time.Duration) time.Time {
	lifetime := notAfter.Sub(receivedAt)
	if before <= 0 || before >= lifetime {
		before = lifetime / 3
	}
	wait := lifetime - before
	return receivedAt.Add(wait - time.Duration(fraction(id, 0)*float64(wait/10)))
}

// Within moves a planned renewal of a volume into the nearest window. It is never earlier than half of the wait,
// and leaves half of the time between plan and end for retries; where no window is in between, the plan stays.
// Within its window a volume's time is spread, too.
func Within(w volume.Window, id string, receivedAt, planned, notAfter time.Time) time.Time {
	earliest, latest := receivedAt.Add(planned.Sub(receivedAt)/2), planned.Add(notAfter.Sub(planned)/2)
	best, distance := planned, time.Duration(math.MaxInt64)
	for day := earliest.AddDate(0, 0, -1); !day.After(latest.AddDate(0, 0, 1)); day = day.AddDate(0, 0, 1) {
		begins, ends, ok := w.On(day)
		begins, ends = Later(begins, earliest), Earlier(ends, latest)
		if !ok || !begins.Before(ends) {
			continue
		}
		if !planned.Before(begins) && planned.Before(ends) {
			return planned
		}
		if d := max(begins.Sub(planned), planned.Sub(ends)); d < distance {
			best, distance = begins.Add(time.Duration(fraction(id, 0)*float64(ends.Sub(begins)))), d
		}
	}
	return best
}

// Later returns the later of two times.
func Later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Earlier returns the earlier of two times.
func Earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// Backoff returns how long a volume waits after the count-th failure in a row, by the kind of the last one. A pod
// that has no valid certificate waits less for what time may mend. The last quarter of the wait is spread,
// differently for every count.
func Backoff(id string, kind signer.Kind, count int, served bool) time.Duration {
	first, longest := 2*time.Second, 5*time.Minute
	switch {
	case kind.Ends():
		first, longest = time.Minute, time.Hour
	case !served:
		longest = 30 * time.Second
	}
	doublings := min(max(count-1, 0), 16)
	wait := min(first<<doublings, longest)
	return wait + time.Duration(fraction(id, count)*float64(wait/4))
}

// fraction returns a number in [0, 1) that depends on volume and count alone.
func fraction(id string, count int) float64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", id, count))
	return float64(binary.BigEndian.Uint32(sum[:])) / (1 << 32)
}
