package issue

import (
	"fmt"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/signer"
)

// fails returns the failure after failures of the kinds, each at the end of the backoff before.
func fails(kinds ...signer.Kind) (f *store.Failure) {
	at := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	for _, kind := range kinds {
		f = failure("csi-1", f, signer.Errorf(kind, "no"), at, false)
		at = f.RetryAt
	}
	return f
}

// Another kind of failure starts the backoff anew: for all pairs of kinds.
func TestAnotherKindOfFailureStartsTheBackoffAnew(t *testing.T) {
	for _, before := range signer.Kinds() {
		for _, then := range signer.Kinds() {
			t.Run(fmt.Sprintf("%s, then %s", before, then), func(t *testing.T) {
				count := 1
				if before == then {
					count = 6
				}
				f := fails(before, before, before, before, before, then)
				if got, want := f.RetryAt.Sub(f.At), renew.Backoff("csi-1", then, count, false); got != want {
					t.Errorf("backs off for %s, want %s", got, want)
				}
				if f.Count != 6 || f.Ends() != then.Ends() {
					t.Errorf("%+v", f)
				}
			})
		}
	}
}

// What happens between two refusals of one kind does not reset their backoff: an issuer that takes its time to refuse is
// asked less and less often.
func TestWaitsBetweenRefusals(t *testing.T) {
	for name, row := range map[string]struct {
		kinds []signer.Kind
		count int
	}{
		"waits":           {[]signer.Kind{signer.Failed, signer.NotYet, signer.Failed, signer.NotYet, signer.Failed}, 3},
		"an outage":       {[]signer.Kind{signer.Failed, signer.Unavailable, signer.Unavailable, signer.Failed}, 2},
		"another refusal": {[]signer.Kind{signer.Failed, signer.Failed, signer.Denied, signer.Failed}, 1},
		"a wait after":    {[]signer.Kind{signer.NotYet, signer.NotYet, signer.Failed, signer.NotYet}, 1},
	} {
		f := fails(row.kinds...)
		want := renew.Backoff("csi-1", row.kinds[len(row.kinds)-1], row.count, false)
		if got := f.RetryAt.Sub(f.At); got != want {
			t.Errorf("%s: backs off for %s, want %s", name, got, want)
		}
	}
}

// The text of a failure has nothing that changes before the next try, and its reason once.
func TestTheTextOfAFailure(t *testing.T) {
	retry := time.Date(2026, 6, 1, 12, 1, 0, 0, time.UTC)
	for name, row := range map[string]struct {
		kinds []signer.Kind
		want  string
	}{
		"a refusal":       {[]signer.Kind{signer.Denied}, "request denied: no (tried once; the next try is at 2026-06-01T12:01:00Z)"},
		"refusals":        {[]signer.Kind{signer.Failed, signer.Failed}, "signing failed: no (tried 2 times; the next try is at 2026-06-01T12:01:00Z)"},
		"a wait":          {[]signer.Kind{signer.NotYet}, "not signed yet: no"},
		"an outage":       {[]signer.Kind{signer.Unavailable, signer.Unavailable}, "signer unavailable: no"},
		"an outage after": {[]signer.Kind{signer.Denied, signer.Unavailable}, "signer unavailable: no"},
	} {
		f := *fails(row.kinds...)
		f.RetryAt = retry
		if got := (BackoffError{f}).Error(); got != row.want {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
}
