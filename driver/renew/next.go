package renew

import "time"

// A State is what decides when a volume is looked at next.
type State struct {
	Rule      Rule
	FailedAt  time.Time // Of the last attempt, if it failed.
	RetryAt   time.Time // Until when it backs off; zero: it does not.
	Pending   bool      // An attempt is under way that an earlier process left.
	HasPair   bool      // The pod has a pair that can be read.
	Open      bool      // What held back the first attempt in the background is over.
	NotBefore time.Time // When the pair begins; zero: not known.
	ValidFrom time.Time // From when on it counts as valid; zero: not known.
	NotAfter  time.Time // When it ends; zero: not known.
	IssuedAt  time.Time // When it was received; zero: not known, or there never was one.
	RenewAt   time.Time // When it is to be renewed, as that was planned; zero: it was not.
	Stalled   bool      // It ends no later than the one before: it may be renewed as late as at its end.
	Once      bool      // It is not renewed by itself.
	Wanted    time.Time // When somebody wants certificates renewed that are older than this; zero: nobody does.
}

// Next returns when the volume is to be looked at; zero: not before a call comes. What was planned counts as far as
// the clock explains it: times that it has not reached again since it was set back are planned anew, and a pair that is
// valid only later is due.
func Next(s State, now time.Time) time.Time {
	switch {
	case !s.RetryAt.IsZero():
		rest := Rest(s.FailedAt, s.RetryAt, now)
		if s.Wanted.After(s.FailedAt) { // Somebody has mended the cause, perhaps.
			return Earlier(rest, Later(s.Wanted, s.FailedAt.Add(ShortestRest)))
		}
		return rest
	case s.Pending, !s.HasPair && s.Open:
		return now
	case !s.HasPair && s.IssuedAt.IsZero():
		return time.Time{}
	case s.HasPair && s.Wanted.After(s.Received(now)) && (s.Once || s.Wanted.Before(s.renewal(now))):
		return s.Wanted
	case s.HasPair && s.Once:
		return time.Time{}
	}
	return s.renewal(now)
}

// Rest returns until when a volume backs off that failed at failedAt and then was to be tried again at retryAt: no
// longer than any backoff, and until now if the clock was set back to before the failure.
func Rest(failedAt, retryAt, now time.Time) time.Time {
	if failedAt.After(now) {
		return now
	}
	return Earlier(retryAt, failedAt.Add(LongestBackoff))
}

// Received returns when the pair was received, as far as that is known. If the clock was set back to before that, it
// is when the pair begins.
func (s State) Received(now time.Time) time.Time {
	if s.IssuedAt.IsZero() || s.IssuedAt.After(now) {
		return s.NotBefore
	}
	return s.IssuedAt
}

// renewal returns when the pair is renewed: at RenewAt, but no later than the clock explains.
func (s State) renewal(now time.Time) time.Time {
	switch latest := s.latest(now); {
	case s.RenewAt.IsZero(), s.IssuedAt.After(now):
		return latest
	case s.NotAfter.IsZero():
		return s.RenewAt
	default:
		return Earlier(s.RenewAt, latest)
	}
}

// latest returns the latest time for which a renewal may have been planned; now if nothing is known of the pair, and if
// the clock was set back to before it is valid.
func (s State) latest(now time.Time) time.Time {
	switch received := s.Received(now); {
	case received.IsZero(), s.NotAfter.IsZero():
		return now
	case s.ValidFrom.After(now):
		return now
	case s.Stalled && !s.IssuedAt.After(now):
		return s.NotAfter
	default:
		return s.Rule.At(received, s.NotAfter)
	}
}
