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

// A Rule is what a volume asks for about its renewals.
type Rule struct {
	ID     string
	Before time.Duration  // Before the certificate's end; 0: a third of its life.
	Part   int            // The same, in percent of its life; 0: Before counts.
	Window *volume.Window // nil: at any time.
}

// At returns when a certificate is renewed that was received at received and ends at end: before its end, or after two
// thirds of the time from receipt if neither Before nor Part says otherwise, or Before is not less than that time; and
// not in the first third of it.
// Issuers backdate NotBefore, so it does not count. In a window if there is one in time.
//
// Volumes that were made together are spread over the last tenth of the wait. The spread is a function of the
// volume alone.
func (r Rule) At(received, end time.Time) time.Time {
	lifetime := end.Sub(received)
	wait := lifetime - min(r.before(lifetime), mostBefore(lifetime))
	at := received.Add(wait - time.Duration(fraction(r.ID, 0)*float64(wait/10)))
	if r.Window != nil {
		return r.within(received, at, end)
	}
	return at
}

// before returns how long before its end a certificate of that lifetime is to be renewed.
func (r Rule) before(lifetime time.Duration) time.Duration {
	switch {
	case r.Part > 0:
		return lifetime / 100 * time.Duration(r.Part)
	case r.Before > 0 && r.Before < lifetime:
		return r.Before
	}
	return lifetime / 3
}

// mostBefore returns how long before its end a certificate may be renewed at most: when it is a third of its life old,
// or some 37 in a hundred, as that is spread.
func mostBefore(lifetime time.Duration) time.Duration { return lifetime - (lifetime/27+1)*10 }

// IsCut reports whether such a certificate is renewed later than Before or Part says.
func (r Rule) IsCut(received, end time.Time) bool {
	lifetime := end.Sub(received)
	return r.before(lifetime) > mostBefore(lifetime)
}

// within moves a planned renewal into the nearest window. It is never earlier than half of the wait or a third of the
// certificate's life, and leaves half of the time between plan and end for retries; where no window is in between, the
// plan stays. Within its window a volume's time is spread, too.
func (r Rule) within(received, planned, end time.Time) time.Time {
	earliest := Later(received.Add(planned.Sub(received)/2), received.Add(end.Sub(received)/3))
	latest := planned.Add(end.Sub(planned) / 2)
	best, distance := planned, time.Duration(math.MaxInt64)
	// A window comes at least once a week: no nearer one is more than a week away from the plan.
	first, last := Later(earliest, planned.AddDate(0, 0, -7)), Earlier(latest, planned.AddDate(0, 0, 7))
	for day := r.Window.Noon(first).AddDate(0, 0, -1); !day.After(last.AddDate(0, 0, 1)); day = day.AddDate(0, 0, 1) {
		begins, ends, ok := r.Window.On(day)
		begins, ends = Later(begins, earliest), Earlier(ends, latest)
		if !ok || !begins.Before(ends) {
			continue
		}
		if !planned.Before(begins) && planned.Before(ends) {
			return planned
		}
		if d := max(begins.Sub(planned), planned.Sub(ends)); d < distance {
			best, distance = begins.Add(time.Duration(fraction(r.ID, 0)*float64(ends.Sub(begins)))), d
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

const (
	// ShortestRest is how long a volume rests at least after a failure whose cause is said to be mended: who says so
	// may be wrong, again and again. It leaves a second of the five in which the next try comes.
	ShortestRest = 4 * time.Second

	longestRefused = time.Hour // After failures that ended their attempts.
	longestWaiting = 5 * time.Minute
	// LongestBackoff is longer than any backoff, its spread included.
	LongestBackoff = longestRefused * 5 / 4
)

// Backoff returns how long a volume waits after the count-th failure in a row, by the kind of the last one. A pod
// that has no valid certificate waits less for what time may mend. The last quarter of the wait is spread,
// differently for every count.
func Backoff(id string, kind signer.Kind, count int, served bool) time.Duration {
	first, longest := 2*time.Second, longestWaiting
	switch {
	case kind.Ends():
		first, longest = time.Minute, longestRefused
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
