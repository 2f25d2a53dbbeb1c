// Package trust provides the CA certificates of volumes: it watches their sources, each once however many volumes use
// it, and updates the volumes when a source changes.
//
// A [Memory] decides for one volume and is pure; a [Watcher] watches; an [Updater] writes.
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
	"github.com/mayfly-csi/mayfly/signer/message"
)

// MaxSize is the greatest size of a volume's CA certificates in PEM, of all sources together.
const MaxSize = chain.MaxSize

// MaxChecks is how many signatures are checked for one change of a source or one answer of the issuer. A chain takes
// one for each of its certificates.
const MaxChecks = 16

// A Memory is what is known of one volume's CA certificates: enough to go on after a restart when a source is gone.
// Its methods are pure.
type Memory struct {
	sources   map[string]sourceState // By the name of the source.
	issuers   []issuer               // The latest end first.
	installed string                 // What the pod has: a digest.

	distrusted volume.Fingerprints // None of them is in the pod's files.
	ancestors  []ancestor          // Of the pod's certificate.
}

// sourceState is the last known state of a source.
type sourceState struct {
	read         bool // It was read at least once.
	certificates chain.Bundle
	text         []byte // Of a file that is passed on as it is; nil: the certificates are.
	problem      string // What is wrong with it now; empty: nothing.
}

// An issuer is a CA certificate that issued, directly or not, a certificate of this volume that ends at endsAt.
type issuer struct {
	certificate chain.Certificate
	endsAt      time.Time
}

// An Answer is the content of a source: certificates, or the reason why there are none. The zero Answer: not read yet.
type Answer struct {
	Certificates chain.Bundle
	Text         []byte // Of a file, where it is another than that of the certificates.
	Err          error
}

// Update returns the memory with the current content of the sources. The pod has the chain, leaf first; it is empty
// for a pod without a certificate. A source that can't be read keeps the certificates that it had.
func (m Memory) Update(
	sources []volume.Source, answer func(volume.Source) Answer, leafFirst chain.Bundle, now time.Time,
) Memory {
	next, refused := m.update(sources, sources, answer)
	if len(refused) > 0 { // A later one may have become smaller.
		next, _ = next.update(refused, sources, answer)
	}
	return next.noteChain(leafFirst, nil, now, chain.NewChecks(MaxChecks)).prune(sources)
}

// update updates some of the sources, and returns those whose certificates exceed MaxSize.
func (m Memory) update(
	some, sources []volume.Source, answer func(volume.Source) Answer,
) (_ Memory, refused []volume.Source) {
	for _, s := range some {
		if !shared(s) {
			continue
		}
		before := m.sources[s.String()]
		switch a := answer(s); {
		case before.read && errors.Is(a.Err, ErrNoAnswer):
		case a.Err != nil:
			before.problem = message.Cut(a.Err.Error(), message.LongestReason)
			m = m.with(s, before)
		case a.Certificates != nil:
			next := m.with(s, sourceState{read: true, certificates: a.Certificates, text: a.Text})
			if n := next.union(sources).Size(); n > MaxSize {
				const format = "all sources together have %d bytes of CA certificates: more than %d"
				before.problem = fmt.Sprintf(format, n, MaxSize)
				next, refused = m.with(s, before), append(refused, s)
			}
			m = next
		}
	}
	return m, refused
}

// Issued returns the memory with the issuer's CA certificates, where the volume wants them, and with the pod's new
// chain, leaf first. An issuer that sends no CA keeps the one that it sent before, while that issued the chain.
func (m Memory) Issued(
	sources []volume.Source, ca, leafFirst chain.Bundle, now time.Time, checks *chain.Checks,
) Memory {
	issuer := volume.Source{Kind: volume.IssuerSource}
	before, sent := m.sources[issuer.String()], ca
	if len(ca) == 0 && len(issuers(leafFirst, before.certificates, now, checks)) > 0 {
		ca = before.certificates
	}
	if before.read || slices.Contains(sources, issuer) {
		m = m.with(issuer, sourceState{read: true, certificates: ca})
	}
	m.ancestors = nil
	return m.noteChain(leafFirst, sent, now, checks).prune(sources)
}

// FromFiles makes the memory of a volume of which only the files are known. Their CA certificates stay until its
// sources have been read.
func FromFiles(sources []volume.Source, roots, leafFirst chain.Bundle, now time.Time) Memory {
	had := sourceState{read: true, certificates: roots}
	m := Memory{sources: map[string]sourceState{"": had}} // Of no source.
	if issuer := (volume.Source{Kind: volume.IssuerSource}); slices.Contains(sources, issuer) {
		m = m.with(issuer, had) // It is read when it issues.
	}
	return m.noteChain(leafFirst, nil, now, chain.NewChecks(MaxChecks)).SetInstalled(roots, nil)
}

// noteIssuers records the certificates that issued the chain's leaf, directly or not, and forgets those that expired or
// are distrusted: only a source brings these back.
func (m Memory) noteIssuers(leafFirst chain.Bundle, now time.Time, checks *chain.Checks) Memory {
	ends := map[string]issuer{}
	for _, r := range m.issuers {
		if r.endsAt.After(now) && !m.distrusts(r.certificate) {
			ends[string(r.certificate.Raw())] = r
		}
	}
	for _, c := range m.issuersOf(leafFirst, now, checks) {
		end := endOf(leafFirst[0])
		if own := endOf(c); !own.IsZero() && own.Before(end) { // An expired root verifies nothing.
			end = own
		}
		if before := ends[string(c.Raw())]; before.endsAt.Before(end) {
			ends[string(c.Raw())] = issuer{c, end}
		}
	}
	m.issuers = capped(slices.SortedFunc(maps.Values(ends), func(a, b issuer) int {
		return cmp.Or(b.endsAt.Compare(a.endsAt), slices.Compare(a.certificate.Raw(), b.certificate.Raw()))
	}))
	return m
}

// endOf returns when a certificate ends; zero: it can't be parsed.
func endOf(c chain.Certificate) time.Time {
	parsed, err := c.X509()
	if err != nil {
		return time.Time{}
	}
	return parsed.NotAfter
}

// issuersOf returns the certificates that issued the chain's leaf, directly or not: those that the sources have or, if
// no root is among these, those that were removed from them, too. A removed root is not kept because of a cross
// certificate in the chain while the sources have another root of the leaf.
func (m Memory) issuersOf(leafFirst chain.Bundle, now time.Time, checks *chain.Checks) chain.Bundle {
	present := issuers(leafFirst, m.issuersFirst(m.trusted(m.present())), now, checks)
	if slices.ContainsFunc(present, chain.Certificate.SelfIssued) {
		return present
	}
	return issuers(leafFirst, m.issuersFirst(m.trusted(m.all())), now, checks)
}

// issuersFirst returns the certificates with the recorded issuers first: however many a source has, the limited number
// of checks reaches those.
func (m Memory) issuersFirst(all chain.Bundle) chain.Bundle {
	recorded := map[string]bool{}
	for _, r := range m.issuers {
		recorded[string(r.certificate.Raw())] = true
	}
	first, rest := chain.Bundle{}, chain.Bundle{}
	for _, c := range all {
		if recorded[string(c.Raw())] {
			first = append(first, c)
		} else {
			rest = append(rest, c)
		}
	}
	return append(first, rest...)
}

// capped leaves out the first to end of more issuers than any volume has: who writes a source can make any number of
// them, for a CA's name and key are public.
func capped(all []issuer) []issuer {
	left := MaxSize / 4
	for i, r := range all {
		if left -= (chain.Bundle{r.certificate}).Size(); left < 0 {
			return all[:i]
		}
	}
	return all
}

// Roots returns the CA certificates for the pod: those of its sources in order, then those that were removed from them
// but issued a certificate of the volume that has not expired. The pod's peers have such certificates, too. None of
// them is distrusted, or has expired while another has not.
func (m Memory) Roots(sources []volume.Source, now time.Time) chain.Bundle {
	return m.trusted(m.roots(sources, now))
}

// roots returns the CA certificates for the pod, distrusted ones included.
func (m Memory) roots(sources []volume.Source, now time.Time) chain.Bundle {
	all := m.union(sources)
	if len(m.unread(sources)) > 0 { // Earlier sources stay until the current ones were read.
		all = chain.Unite(all, m.all())
	}
	return current(chain.Unite(all, m.unexpired(now)), now)
}

// Complete reports whether every source was read at least once.
func (m Memory) Complete(sources []volume.Source) bool { return len(m.unread(sources)) == 0 }

// Missing returns the first source that was never read, without which a pod can't start, and what is wrong with it; ok
// is false if there is none. The issuer is not among them: it is read when it issues.
func (m Memory) Missing(sources []volume.Source) (s volume.Source, problem string, ok bool) {
	for _, s := range m.unread(sources) {
		if s.Kind != volume.IssuerSource {
			return s, cmp.Or(m.sources[s.String()].problem, "it has not been read yet"), true
		}
	}
	return volume.Source{}, "", false
}

// Problems returns what is wrong with sources, by their names, and what that means for a running pod.
func (m Memory) Problems() map[string]string {
	problems := map[string]string{}
	for name, h := range m.sources {
		switch {
		case h.problem == "":
		case h.read:
			problems[name] = fmt.Sprintf("%s; the pod keeps the CA certificates that it has from %s", h.problem, name)
		default:
			problems[name] = fmt.Sprintf("%s; the pod goes on without CA certificates from %s", h.problem, name)
		}
	}
	return problems
}

// Unparsed returns the certificates that can't be parsed, by the names of their sources.
func (m Memory) Unparsed() map[string]string {
	unparsed := map[string]string{}
	for name, h := range m.sources {
		if name == (volume.Source{Kind: volume.IssuerSource}).String() {
			continue // Those come with a certificate, which has its own warnings.
		}
		if all := h.certificates.Unparsed(); len(all) > 0 {
			unparsed[name] = name + ": " + strings.Join(all, "; ")
		}
	}
	return unparsed
}

// HasInstalled reports whether SetInstalled was called.
func (m Memory) HasInstalled() bool { return m.installed != "" }

// SetInstalled returns the memory with these as the CA certificates in the pod's files, and their text.
func (m Memory) SetInstalled(roots chain.Bundle, text []byte) Memory {
	m.installed = digest(roots, text)
	return m
}

// IsInstalled reports whether these are the CA certificates in the pod's files, and their text.
func (m Memory) IsInstalled(roots chain.Bundle, text []byte) bool {
	return m.installed == digest(roots, text)
}

// digest returns a hash of the certificates in their order, and of their text.
func digest(roots chain.Bundle, text []byte) string {
	sum := sha256.New()
	for _, c := range roots {
		sum.Write(c.Raw()) // DER is self-delimiting.
	}
	sum.Write(text)
	return hex.EncodeToString(sum.Sum(nil))
}

// with returns the memory with the state of a source.
func (m Memory) with(s volume.Source, h sourceState) Memory {
	if m.sources = maps.Clone(m.sources); m.sources == nil {
		m.sources = map[string]sourceState{}
	}
	m.sources[s.String()] = h
	return m
}

// prune removes sources that the volume no longer has, once all that it has were read.
func (m Memory) prune(sources []volume.Source) Memory {
	if !m.Complete(sources) {
		return m
	}
	kept := map[string]sourceState{}
	for _, s := range sources {
		kept[s.String()] = m.sources[s.String()]
	}
	m.sources = kept
	return m
}

// unread returns those of the sources that were never read.
func (m Memory) unread(sources []volume.Source) []volume.Source {
	return slices.DeleteFunc(slices.Clone(sources), func(s volume.Source) bool { return m.sources[s.String()].read })
}

// union returns the certificates of the sources.
func (m Memory) union(sources []volume.Source) chain.Bundle {
	var lists []chain.Bundle
	for _, s := range sources {
		lists = append(lists, m.sources[s.String()].certificates)
	}
	return chain.Unite(lists...)
}

// present returns the certificates of all recorded sources.
func (m Memory) present() chain.Bundle {
	var lists []chain.Bundle
	for _, name := range slices.Sorted(maps.Keys(m.sources)) {
		lists = append(lists, m.sources[name].certificates)
	}
	return chain.Unite(lists...)
}

// all returns the certificates of all recorded sources and the recorded issuers.
func (m Memory) all() chain.Bundle {
	lists := []chain.Bundle{m.present()}
	for _, r := range m.issuers {
		lists = append(lists, chain.Bundle{r.certificate})
	}
	return chain.Unite(lists...)
}

// unexpired returns the recorded issuers that have not ended.
func (m Memory) unexpired(now time.Time) (roots chain.Bundle) {
	for _, r := range m.issuers {
		if r.endsAt.After(now) {
			roots = append(roots, r.certificate)
		}
	}
	return roots
}

// issuers returns those candidates that issued the chain's leaf, directly or through others, and have not expired at
// t. Names and key identifiers select the signatures to check; who writes a source can choose both.
func issuers(leafFirst, candidates chain.Bundle, t time.Time, checks *chain.Checks) chain.Bundle {
	if len(leafFirst) == 0 || leafFirst[0].Expired(t) {
		return nil
	}
	bySubject := map[string]chain.Bundle{}
	for _, c := range chain.Unite(leafFirst[1:], candidates) {
		if !c.Expired(t) {
			bySubject[string(c.Subject())] = append(bySubject[string(c.Subject())], c)
		}
	}
	path, reached := leafFirst[:1:1], map[string]bool{string(leafFirst[0].Raw()): true}
	for i := 0; i < len(path); i++ {
		below, issuer := path[i], string(path[i].Issuer())
		bySubject[issuer] = slices.DeleteFunc(bySubject[issuer], func(c chain.Certificate) bool {
			if !checks.Issued(c, below) {
				return false
			}
			reached[string(c.Raw())] = true
			if root := c.SelfIssued() && c.MayIssue(c); !root {
				path = append(path, c)
			}
			return true
		})
	}
	return slices.DeleteFunc(slices.Clone(candidates), func(c chain.Certificate) bool {
		return !reached[string(c.Raw())]
	})
}
