package trust

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// maxAncestors limits what is recorded of the certificates above a pod's: who writes a source can make any number.
const maxAncestors = 32

// An ancestor is a certificate of a path from the pod's certificate to a root, the pod's own included.
type ancestor struct {
	Fingerprint volume.Fingerprint `json:"sha256"`
	Name        string             `json:"name"`
	Root        bool               `json:"root,omitempty"`
}

// Distrust returns the memory with the operator's list of distrusted certificates: none of them is among its roots,
// whatever the sources have. Of nil, where the list is not known, the memory keeps the last one.
func (m Memory) Distrust(list volume.Fingerprints) Memory {
	if list != nil {
		m.distrusted = list
	}
	return m
}

// trusted returns the certificates that are not distrusted.
func (m Memory) trusted(all chain.Bundle) chain.Bundle {
	if len(m.distrusted) == 0 {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), m.distrusts)
}

// distrusts reports whether a certificate is distrusted.
func (m Memory) distrusts(c chain.Certificate) bool {
	return len(m.distrusted) > 0 && m.distrusted.Has(volume.FingerprintOf(c.Raw()))
}

// noteChain records what is above the pod's chain, leaf first. The issuer's CA certificates count even where they are
// no source of the volume.
func (m Memory) noteChain(leafFirst, ca chain.Bundle, now time.Time, checks *chain.Checks) Memory {
	next := m.noteIssuers(leafFirst, now, checks)
	if len(m.distrusted)+len(ca) == 0 {
		return next // What is above the chain is among the issuers until there is a list.
	}
	known := chain.Unite(m.issuersFirst(m.all()), ca) // With issuers that were forgotten just now.
	return next.noteAncestors(leafFirst, known, now, checks)
}

// noteAncestors records the paths of the chain, leaf first, through the certificates that are known. Those that were
// recorded stay: a source may no longer have them.
func (m Memory) noteAncestors(leafFirst, known chain.Bundle, now time.Time, checks *chain.Checks) Memory {
	if len(leafFirst) == 0 {
		return m
	}
	all := slices.Clone(m.ancestors)
	for _, c := range issuers(leafFirst, chain.Unite(leafFirst, known), now, checks) {
		f := volume.FingerprintOf(c.Raw())
		if recorded := func(a ancestor) bool { return a.Fingerprint == f }; slices.ContainsFunc(all, recorded) {
			continue
		}
		root := c.SelfIssued() && c.MayIssue(c) && !c.Equal(leafFirst[0])
		all = append(all, ancestor{Fingerprint: f, Name: c.String(), Root: root})
	}
	m.ancestors = all[:min(len(all), maxAncestors)]
	return m
}

// DistrustedIssuer names the distrusted certificates through which the pod's certificate chains; empty if there are
// none, or if another root is above it, too.
func (m Memory) DistrustedIssuer() string {
	var names []string
	for _, a := range m.ancestors {
		switch {
		case m.distrusted.Has(a.Fingerprint):
			names = append(names, fmt.Sprintf("%s (SHA-256 %s)", a.Name, a.Fingerprint))
		case a.Root:
			return ""
		}
	}
	return strings.Join(names, " and ")
}

// AllDistrusted reports whether there are CA certificates for the pod, and all of them are distrusted.
func (m Memory) AllDistrusted(sources []volume.Source, now time.Time) bool {
	return len(m.distrusted) > 0 && len(m.Roots(sources, now)) == 0 && len(m.roots(sources, now)) > 0
}
