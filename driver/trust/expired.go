package trust

import (
	"slices"
	"time"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// current returns the certificates that have not expired; all, if all have: some programs can't load an empty file,
// and those that load one say less of what is wrong.
func current(all chain.Bundle, now time.Time) chain.Bundle {
	expired := func(c chain.Certificate) bool { return c.Expired(now) }
	if !slices.ContainsFunc(all, expired) {
		return all
	}
	if left := slices.DeleteFunc(slices.Clone(all), expired); len(left) > 0 {
		return left
	}
	return all
}

// NextEnd returns when the first of the CA certificates ends, or of those that were removed from the sources the last
// certificate below it; zero: none ends any more.
func (m Memory) NextEnd(sources []volume.Source, now time.Time) (first time.Time) {
	note := func(end time.Time) {
		if end.After(now) && (first.IsZero() || end.Before(first)) {
			first = end
		}
	}
	present := map[string]bool{}
	for _, c := range m.union(sources) {
		present[string(c.Raw())] = true
		note(endOf(c))
	}
	for _, r := range m.issuers {
		if !present[string(r.certificate.Raw())] {
			note(r.endsAt)
		}
	}
	return first
}

// expiredRoots returns how many CA certificates of the sources that volumes use have expired.
func (u *Updater) expiredRoots() (n int) {
	var lists []chain.Bundle
	for s := range u.used() {
		lists = append(lists, u.answer(s).Certificates)
	}
	now := u.clocks.Now()
	for _, c := range chain.Unite(lists...) {
		if c.Expired(now) {
			n++
		}
	}
	return n
}
