package renew

import (
	"slices"
	"time"
)

// Shares names those among whom starts and workers are divided, so that nobody is held up by what others have. The
// zero Shares has no part in that.
//
// Of the volumes that are due, the first is one of the namespace that had the fewest starts in the last minutes. Of
// its volumes it is one of the issuer that had the fewest there, then one that had the fewest itself, then one of such
// a pod. Between equals a certificate that is valid goes before one that has ended, and that with the smallest part of
// its life left goes first.
//
// An issuer holds at most half as many workers as are free, a pod as many as are free, and a namespace twice as many.
// So those who come later find a worker, and in a namespace or pod one silent issuer does not hold up the others.
type Shares struct{ Namespace, Pod, Issuer string }

// The kinds of shares, in the order in which they are compared.
const (
	ofNamespace   = iota
	ofIssuerThere // In the namespace.
	ofVolume
	ofPod
	ofIssuer
	kinds
)

// share is one of those who have a share. Without a name it is nobody.
type share struct {
	kind int
	name string
}

// of returns the shares of a volume.
func (s Shares) of(id string) (all [kinds]share) {
	if s == (Shares{}) {
		return all
	}
	return [kinds]share{
		{ofNamespace, s.Namespace}, {ofIssuerThere, s.Namespace + "\n" + s.Issuer},
		{ofVolume, id}, {ofPod, s.Pod}, {ofIssuer, s.Issuer},
	}
}

const (
	// startWeight is what a start counts at first. It counts half as much after each agePeriod, and not at all after
	// five.
	startWeight = 16
	agePeriod   = time.Minute
)

// usage is what of the workers and starts is in use. Its map has only shares that use something.
type usage struct {
	running int
	agedAt  time.Time
	shares  map[share]use
}

// use is what one share uses: workers, and the weight of its starts.
type use struct{ running, starts int }

// uses is what the shares of a volume use, by their kinds.
type uses [kinds]use

// of returns what these shares use.
func (u usage) of(shares [kinds]share) (all uses) {
	for kind, s := range shares {
		if s.name != "" {
			all[kind] = u.shares[s]
		}
	}
	return all
}

// allows reports whether one more volume may start while so many workers are free.
func (u uses) allows(free int) bool {
	return free > 0 && u[ofNamespace].running < 2*free && u[ofPod].running < free && 2*u[ofIssuer].running < free
}

// start counts the start of a volume with these shares.
func (u *usage) start(shares [kinds]share) { u.add(shares, use{1, startWeight}) }

// end counts its end.
func (u *usage) end(shares [kinds]share) { u.add(shares, use{-1, 0}) }

// add adds to what these shares use.
func (u *usage) add(shares [kinds]share, more use) {
	u.running += more.running
	for _, s := range shares {
		if s.name != "" {
			now := u.shares[s]
			u.set(s, use{now.running + more.running, now.starts + more.starts})
		}
	}
}

// set sets what a share uses.
func (u *usage) set(s share, now use) {
	if now == (use{}) {
		delete(u.shares, s)
		return
	}
	u.shares[s] = now
}

// age halves the weight of starts for each period that has gone by.
func (u *usage) age(now time.Time) {
	if u.agedAt.IsZero() {
		u.agedAt = now
	}
	since := now.Sub(u.agedAt)
	if since < agePeriod {
		return
	}
	u.agedAt = now.Add(-(since % agePeriod))
	for s, before := range u.shares {
		u.set(s, use{before.running, before.starts >> min(since/agePeriod, 62)})
	}
}

// rank is the order in which volumes that are due start.
type rank struct {
	starts [kinds]int
	life   float64 // The part of the certificate's life that has gone by; 0: it has ended, or there is none.
	at     time.Time
}

// rankOf returns the rank of a volume whose shares have these uses.
func rankOf(e *entry, u uses, now time.Time) rank {
	r := rank{at: e.At}
	for kind := range u {
		r.starts[kind] = u[kind].starts
	}
	if e.Ends.After(now) {
		r.life = float64(now.Sub(e.Begins)) / float64(e.Ends.Sub(e.Begins))
	}
	return r
}

// before reports whether a volume starts before another.
func (r rank) before(other rank) bool {
	if r.starts != other.starts {
		return slices.Compare(r.starts[:], other.starts[:]) < 0
	}
	if r.life != other.life {
		return r.life > other.life
	}
	return r.at.Before(other.at)
}

// pick returns the volume that starts next; ok is false if none may.
func pick(entries map[string]*entry, u usage, workers int, now time.Time) (id string, ok bool) {
	var best rank
	for candidate, e := range entries {
		if !e.due(now) {
			continue
		}
		used := u.of(e.shares)
		if !used.allows(workers - u.running) {
			continue
		}
		if r := rankOf(e, used, now); !ok || r.before(best) {
			id, best, ok = candidate, r, true
		}
	}
	return id, ok
}
