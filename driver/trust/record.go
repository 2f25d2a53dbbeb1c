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

// Encode returns the memory as the text that [Decode] reads.
func (m Memory) Encode() ([]byte, error) {
	r := record{
		Version: recordVersion, Sources: map[string]sourceRecord{}, Installed: m.installed,
		Distrusted: m.distrusted, Ancestors: m.ancestors,
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
