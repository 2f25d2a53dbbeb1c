// Package trust is where the CA certificates of volumes come from: it watches their sources, as many as volumes use
// and each of them once, and knows what a volume shows when they change.
//
// What it decides is pure: a [Memory] of one volume. What it watches, a [Watcher] tells.
package trust

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// MaxSize is the greatest size of a volume's CA certificates in PEM, of all sources together.
const MaxSize = chain.MaxSize

// maxChecks is how many signatures are checked when a source or the issuer says what it has. A chain takes one for each
// of its certificates.
const maxChecks = 16

// A Memory is what one volume knows of CA certificates: enough to go on when a source is gone and the driver was
// restarted. Its methods are pure.
type Memory struct {
	heard map[string]heard // By the words of the source.
	under []root           // The latest end first.
	shown string           // What the pod has: a digest.
}

// heard is what a source said last.
type heard struct {
	known        bool // It once said what it has.
	certificates chain.Bundle
	trouble      string // What is wrong with it since.
}

// A root is a CA certificate with a certificate of this volume under it, which ends at endsAt.
type root struct {
	certificate chain.Certificate
	endsAt      time.Time
}

// An Answer is what a source has: certificates, or the reason why there are none. The zero Answer: nobody knows yet.
type Answer struct {
	Certificates chain.Bundle
	Err          error
}

// Hear takes in what the sources have now, for a pod that has the chain, leaf first; that is empty for one that has
// none yet. What is good takes the place of what they had; a source in trouble keeps what it had.
func (m Memory) Hear(
	sources []volume.Source, answer func(volume.Source) Answer, leafFirst chain.Bundle, now time.Time,
) Memory {
	next, refused := m.hear(sources, sources, answer)
	if len(refused) > 0 { // One that was looked at later may have made room.
		next, _ = next.hear(refused, sources, answer)
	}
	return next.vouch(leafFirst, now, chain.NewChecks(maxChecks)).tidy(sources)
}

// hear takes in what some of the sources have, and returns those whose certificates there is no room for.
func (m Memory) hear(some, sources []volume.Source, answer func(volume.Source) Answer) (_ Memory, refused []volume.Source) {
	for _, s := range some {
		if s.Kind == volume.IssuerSource {
			continue
		}
		before := m.heard[s.String()]
		switch a := answer(s); {
		case before.known && errors.Is(a.Err, ErrNoAnswer):
		case a.Err != nil:
			before.trouble = a.Err.Error()
			m = m.with(s, before)
		case a.Certificates != nil:
			next := m.with(s, heard{known: true, certificates: a.Certificates})
			if n := next.union(sources).Size(); n > MaxSize {
				before.trouble = fmt.Sprintf("all sources together have %d bytes of CA certificates: more than %d", n, MaxSize)
				next, refused = m.with(s, before), append(refused, s)
			}
			m = next
		}
	}
	return m, refused
}

// Issued takes in the issuer's CA certificates, where the volume wants them, and the chain that the pod has from now
// on, leaf first. An issuer that tells no CA keeps what it told before, as long as that is above its certificates.
func (m Memory) Issued(sources []volume.Source, ca, leafFirst chain.Bundle, now time.Time) Memory {
	issuer := volume.Source{Kind: volume.IssuerSource}
	before := m.heard[issuer.String()]
	checks := chain.NewChecks(maxChecks)
	if len(ca) == 0 && len(above(leafFirst, before.certificates, now, checks)) > 0 {
		ca = before.certificates
	}
	if before.known || slices.Contains(sources, issuer) {
		m = m.with(issuer, heard{known: true, certificates: ca})
	}
	return m.vouch(leafFirst, now, checks).tidy(sources)
}

// Found makes the memory of a volume of which nothing is known but what its pod has. That stays until its sources
// have said what they have.
func Found(sources []volume.Source, roots, leafFirst chain.Bundle, now time.Time) Memory {
	had := heard{known: true, certificates: roots}
	m := Memory{heard: map[string]heard{"": had}} // Of no source.
	if issuer := (volume.Source{Kind: volume.IssuerSource}); slices.Contains(sources, issuer) {
		m = m.with(issuer, had) // It says what it has when it issues.
	}
	return m.vouch(leafFirst, now, chain.NewChecks(maxChecks)).Show(roots)
}

// vouch notes which of the certificates have the chain's leaf under them.
func (m Memory) vouch(leafFirst chain.Bundle, now time.Time, checks *chain.Checks) Memory {
	ends := map[string]root{}
	for _, r := range m.under {
		if r.endsAt.After(now) {
			ends[string(r.certificate.Raw())] = r
		}
	}
	for _, c := range m.carriers(leafFirst, now, checks) {
		end := endOf(leafFirst[0])
		if own := endOf(c); !own.IsZero() && own.Before(end) { // A root that is over vouches for nobody.
			end = own
		}
		if before := ends[string(c.Raw())]; before.endsAt.Before(end) {
			ends[string(c.Raw())] = root{c, end}
		}
	}
	m.under = bounded(slices.SortedFunc(maps.Values(ends), func(a, b root) int {
		return cmp.Or(b.endsAt.Compare(a.endsAt), slices.Compare(a.certificate.Raw(), b.certificate.Raw()))
	}))
	return m
}

// endOf returns when a certificate ends; zero: that is not known.
func endOf(c chain.Certificate) time.Time {
	parsed, err := c.X509()
	if err != nil {
		return time.Time{}
	}
	return parsed.NotAfter
}

// carriers returns the certificates that have the chain's leaf under them: those that the sources have, or, if there
// are none, those that are gone. A root that is gone is not kept by a cross certificate in the chain, when another
// carries the leaf.
func (m Memory) carriers(leafFirst chain.Bundle, now time.Time, checks *chain.Checks) chain.Bundle {
	present := above(leafFirst, m.notedFirst(m.present()), now, checks)
	if slices.ContainsFunc(present, chain.Certificate.SelfIssued) {
		return present
	}
	return above(leafFirst, m.notedFirst(m.all()), now, checks)
}

// notedFirst puts first those that once had a certificate of the volume under them: however many a source brings, the
// checks do not end before them.
func (m Memory) notedFirst(all chain.Bundle) chain.Bundle {
	noted := map[string]bool{}
	for _, r := range m.under {
		noted[string(r.certificate.Raw())] = true
	}
	first, rest := chain.Bundle{}, chain.Bundle{}
	for _, c := range all {
		if noted[string(c.Raw())] {
			first = append(first, c)
		} else {
			rest = append(rest, c)
		}
	}
	return append(first, rest...)
}

// bounded leaves out the first to end of more roots than any volume has: whoever writes a source can make any number of them, for a CA's name and key
// are public.
func bounded(under []root) []root {
	left := MaxSize / 4
	for i, r := range under {
		if left -= (chain.Bundle{r.certificate}).Size(); left < 0 {
			return under[:i]
		}
	}
	return under
}

// Roots returns the CA certificates that the volume shows: those of its sources in order, then those that are gone
// from them and still have a certificate of the volume under them, which is not the only one that was issued under
// them: the pod's peers were issued alike.
func (m Memory) Roots(sources []volume.Source, now time.Time) chain.Bundle {
	all := m.union(sources)
	if len(m.lacking(sources)) > 0 { // What was asked for before stays until what is asked for now is known.
		all = chain.Unite(all, m.all())
	}
	return chain.Unite(all, m.alive(now))
}

// NextEnd is when the first root goes that is gone from the sources; zero: none is there.
func (m Memory) NextEnd(sources []volume.Source, now time.Time) (first time.Time) {
	present := map[string]bool{}
	for _, c := range m.union(sources) {
		present[string(c.Raw())] = true
	}
	for _, r := range m.under {
		if r.endsAt.After(now) && !present[string(r.certificate.Raw())] {
			first = r.endsAt // The latest comes first.
		}
	}
	return first
}

// Complete reports whether every source has said once what it has.
func (m Memory) Complete(sources []volume.Source) bool { return len(m.lacking(sources)) == 0 }

// Lacking is the first source without which a pod can't begin, and what is wrong with it; ok is false if there is none. The issuer speaks when it issues.
func (m Memory) Lacking(sources []volume.Source) (s volume.Source, trouble string, ok bool) {
	for _, s := range m.lacking(sources) {
		if s.Kind != volume.IssuerSource {
			return s, cmp.Or(m.heard[s.String()].trouble, "it has not been read yet"), true
		}
	}
	return volume.Source{}, "", false
}

// Troubles are what is wrong with sources, by their words, and what that means for a pod that has begun.
func (m Memory) Troubles() map[string]string {
	troubles := map[string]string{}
	for words, h := range m.heard {
		switch {
		case h.trouble == "":
		case h.known:
			troubles[words] = fmt.Sprintf("%s; the pod keeps the CA certificates that it has from %s", h.trouble, words)
		default:
			troubles[words] = fmt.Sprintf("%s; the pod goes on without CA certificates from %s", h.trouble, words)
		}
	}
	return troubles
}

// Unparsed names the certificates of sources that can't be parsed, by the sources' words.
func (m Memory) Unparsed() map[string]string {
	unparsed := map[string]string{}
	for words, h := range m.heard {
		if words == (volume.Source{Kind: volume.IssuerSource}).String() {
			continue // Those come with a certificate, which has its own warnings.
		}
		if all := h.certificates.Unparsed(); len(all) > 0 {
			unparsed[words] = words + ": " + strings.Join(all, "; ")
		}
	}
	return unparsed
}

// Knows reports whether it is known what the pod has.
func (m Memory) Knows() bool { return m.shown != "" }

// Show notes what the pod has now.
func (m Memory) Show(roots chain.Bundle) Memory {
	m.shown = digest(roots)
	return m
}

// Shows reports whether that is what the pod has.
func (m Memory) Shows(roots chain.Bundle) bool { return m.shown == digest(roots) }

func digest(roots chain.Bundle) string {
	sum := sha256.New()
	for _, c := range roots {
		sum.Write(c.Raw()) // DER says where it ends.
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func (m Memory) with(s volume.Source, h heard) Memory {
	if m.heard = maps.Clone(m.heard); m.heard == nil {
		m.heard = map[string]heard{}
	}
	m.heard[s.String()] = h
	return m
}

// tidy forgets what is not asked for any more.
func (m Memory) tidy(sources []volume.Source) Memory {
	if !m.Complete(sources) {
		return m
	}
	kept := map[string]heard{}
	for _, s := range sources {
		kept[s.String()] = m.heard[s.String()]
	}
	m.heard = kept
	return m
}

func (m Memory) lacking(sources []volume.Source) []volume.Source {
	return slices.DeleteFunc(slices.Clone(sources), func(s volume.Source) bool { return m.heard[s.String()].known })
}

// union returns what the sources have.
func (m Memory) union(sources []volume.Source) chain.Bundle {
	var lists []chain.Bundle
	for _, s := range sources {
		lists = append(lists, m.heard[s.String()].certificates)
	}
	return chain.Unite(lists...)
}

// present returns the certificates of all sources that were ever asked for.
func (m Memory) present() chain.Bundle {
	var lists []chain.Bundle
	for _, words := range slices.Sorted(maps.Keys(m.heard)) {
		lists = append(lists, m.heard[words].certificates)
	}
	return chain.Unite(lists...)
}

// all returns those, and those that stay.
func (m Memory) all() chain.Bundle {
	lists := []chain.Bundle{m.present()}
	for _, r := range m.under {
		lists = append(lists, chain.Bundle{r.certificate})
	}
	return chain.Unite(lists...)
}

func (m Memory) alive(now time.Time) (roots chain.Bundle) {
	for _, r := range m.under {
		if r.endsAt.After(now) {
			roots = append(roots, r.certificate)
		}
	}
	return roots
}

// above returns those candidates that lead up from the chain's leaf, each as the issuer of one below it. Whoever can
// write a source can make roots with any name and key identifier: these say which signatures are checked. What has
// expired at t leads nowhere.
func above(leafFirst, candidates chain.Bundle, t time.Time, checks *chain.Checks) chain.Bundle {
	if len(leafFirst) == 0 || leafFirst[0].Expired(t) {
		return nil
	}
	bySubject := map[string]chain.Bundle{}
	for _, c := range chain.Unite(leafFirst[1:], candidates) {
		if !c.Expired(t) {
			bySubject[string(c.Subject())] = append(bySubject[string(c.Subject())], c)
		}
	}
	line, reached := leafFirst[:1:1], map[string]bool{string(leafFirst[0].Raw()): true}
	for i := 0; i < len(line); i++ {
		below, issuer := line[i], string(line[i].Issuer())
		bySubject[issuer] = slices.DeleteFunc(bySubject[issuer], func(c chain.Certificate) bool {
			if !checks.Issued(c, below) {
				return false
			}
			reached[string(c.Raw())] = true
			if root := c.SelfIssued() && c.MayIssue(c); !root {
				line = append(line, c)
			}
			return true
		})
	}
	return slices.DeleteFunc(slices.Clone(candidates), func(c chain.Certificate) bool {
		return !reached[string(c.Raw())]
	})
}
