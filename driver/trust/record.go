package trust

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// recordVersion is the version of the format that this driver writes.
const recordVersion = 1

// record is the JSON form of a Memory. Certificates are DER.
type record struct {
	Version   int                     `json:"version"`
	Sources   map[string]sourceRecord `json:"heard"`
	Issuers   []issuerRecord          `json:"under,omitempty"`
	Installed string                  `json:"shown,omitempty"`

	Distrusted volume.Fingerprints `json:"distrusted,omitempty"`
	Ancestors  []ancestor          `json:"ancestors,omitempty"`

	NextEnd *time.Time `json:"nextEnd,omitempty"` // See Memory.NextEnd; nil in records of before.
	At      time.Time  `json:"at,omitzero"`       // When NextEnd was the next end; zero in records of before.
}

type sourceRecord struct {
	Read         bool     `json:"known"`
	Certificates [][]byte `json:"certificates,omitempty"`
	Text         []byte   `json:"text,omitempty"`
	Problem      string   `json:"trouble,omitempty"`
}

type issuerRecord struct {
	Certificate []byte    `json:"certificate"`
	EndsAt      time.Time `json:"endsAt"`
}

// Encode returns the memory of a volume with these sources as the text that [Decode] reads.
func (m Memory) Encode(sources []volume.Source, now time.Time) ([]byte, error) {
	nextEnd := m.NextEnd(sources, now).UTC()
	r := record{
		Version: recordVersion, Sources: map[string]sourceRecord{}, Installed: m.installed,
		Distrusted: m.distrusted, Ancestors: m.ancestors, NextEnd: &nextEnd, At: now.UTC(),
	}
	for name, h := range m.sources {
		one := sourceRecord{Read: h.read, Text: h.text, Problem: h.problem}
		for _, c := range h.certificates {
			one.Certificates = append(one.Certificates, c.Raw())
		}
		r.Sources[name] = one
	}
	for _, u := range m.issuers {
		r.Issuers = append(r.Issuers, issuerRecord{u.certificate.Raw(), u.endsAt.UTC()})
	}
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode the record of CA certificates: %w", err)
	}
	return text, nil
}

// Decode returns the memory that was encoded. Another version's is an error.
func Decode(text []byte) (Memory, error) {
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return Memory{}, fmt.Errorf("decode the record of CA certificates: %w", err)
	}
	if r.Version != recordVersion {
		const format = "decode the record of CA certificates: version %d, this driver's is %d"
		return Memory{}, fmt.Errorf(format, r.Version, recordVersion)
	}
	m := Memory{
		sources: map[string]sourceState{}, installed: r.Installed, distrusted: r.Distrusted, ancestors: r.Ancestors,
	}
	for name, one := range r.Sources {
		h := sourceState{read: one.Read, text: one.Text, problem: one.Problem}
		for _, der := range one.Certificates {
			c, err := chain.FromDER(der)
			if err != nil {
				return Memory{}, fmt.Errorf("decode a CA certificate of %s: %w", name, err)
			}
			h.certificates = append(h.certificates, c)
		}
		m.sources[name] = h
	}
	for _, u := range r.Issuers {
		c, err := chain.FromDER(u.Certificate)
		if err != nil {
			return Memory{}, fmt.Errorf("decode a recorded issuer: %w", err)
		}
		m.issuers = append(m.issuers, issuer{c, u.EndsAt})
	}
	return m, nil
}

// nextUpdate returns when the files of a volume that an earlier process has installed are to be looked at, going by its
// record alone. ok is false if that is now: the volume has a source that may have changed meanwhile, or had another,
// or its files follow a list of distrusted certificates, or the clock was set back: what had ended may be valid again.
func nextUpdate(text []byte, sources []volume.Source, now time.Time) (at time.Time, ok bool) {
	var r struct {
		Version    int                        `json:"version"`
		Sources    map[string]json.RawMessage `json:"heard"`
		Installed  string                     `json:"shown"`
		Distrusted volume.Fingerprints        `json:"distrusted"`
		NextEnd    *time.Time                 `json:"nextEnd"`
		At         time.Time                  `json:"at"`
	}
	err := json.Unmarshal(text, &r)
	if err != nil || r.Version != recordVersion || r.NextEnd == nil || now.Before(r.At) {
		return time.Time{}, false
	}
	for _, s := range sources {
		if _, had := r.Sources[s.String()]; shared(s) || !had {
			return time.Time{}, false
		}
	}
	return *r.NextEnd, r.Installed != "" && len(r.Distrusted) == 0 && len(r.Sources) == len(sources)
}
