package renew

import "time"

// A State is what decides when a volume is looked at next.
type State struct {
	Resting  time.Time // Until when it backs off; zero: it does not.
	Pending  bool      // An attempt is under way that an earlier process left.
	HasPair  bool      // The pod has a pair that can be read.
	Open     bool      // What held back the first attempt in the background is over.
	IssuedAt time.Time // When the pair was received; zero: there never was one.
	RenewAt  time.Time // When it is to be renewed.
	Once     bool      // It is not renewed by itself.
	Wanted   time.Time // When somebody wants certificates renewed that are older than this; zero: nobody does.
}

// Next returns when the volume is to be looked at; zero: not before a call comes.
func Next(s State, now time.Time) time.Time {
	switch {
	case !s.Resting.IsZero():
		return s.Resting
	case s.Pending, !s.HasPair && s.Open:
		return now
	case !s.HasPair && s.IssuedAt.IsZero():
		return time.Time{}
	case !s.HasPair: // It can't be read.
		return s.RenewAt
	case s.Wanted.After(s.IssuedAt) && (s.Once || s.Wanted.Before(s.RenewAt)):
		return s.Wanted
	case s.Once:
		return time.Time{}
	}
	return s.RenewAt
}
