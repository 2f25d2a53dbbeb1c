package trust

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/mayfly-csi/mayfly/signer/chain"
)

// recordVersion is that of the text that this driver writes.
const recordVersion = 1

// record is a memory as text. Certificates are DER.
type record struct {
	Version int                    `json:"version"`
	Heard   map[string]heardRecord `json:"heard"`
	Under   []rootRecord           `json:"under,omitempty"`
	Shown   string                 `json:"shown,omitempty"`
}

type heardRecord struct {
	Known        bool     `json:"known"`
	Certificates [][]byte `json:"certificates,omitempty"`
	Trouble      string   `json:"trouble,omitempty"`
}

type rootRecord struct {
	Certificate []byte    `json:"certificate"`
	EndsAt      time.Time `json:"endsAt"`
}

// Encode is the memory as the text that [Decode] reads.
func (m Memory) Encode() ([]byte, error) {
	r := record{Version: recordVersion, Heard: map[string]heardRecord{}, Shown: m.shown}
	for words, h := range m.heard {
		one := heardRecord{Known: h.known, Trouble: h.trouble}
		for _, c := range h.certificates {
			one.Certificates = append(one.Certificates, c.Raw())
		}
		r.Heard[words] = one
	}
	for _, u := range m.under {
		r.Under = append(r.Under, rootRecord{u.certificate.Raw(), u.endsAt.UTC()})
	}
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode what is known of CA certificates: %w", err)
	}
	return text, nil
}

// Decode is the memory that was encoded. That of a newer driver is an error.
func Decode(text []byte) (Memory, error) {
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return Memory{}, fmt.Errorf("decode what is known of CA certificates: %w", err)
	}
	if r.Version != recordVersion {
		return Memory{}, fmt.Errorf("decode what is known of CA certificates: version %d, this driver's is %d", r.Version, recordVersion)
	}
	m := Memory{heard: map[string]heard{}, shown: r.Shown}
	for words, one := range r.Heard {
		h := heard{known: one.Known, trouble: one.Trouble}
		for _, der := range one.Certificates {
			c, err := chain.FromDER(der)
			if err != nil {
				return Memory{}, fmt.Errorf("decode a CA certificate of %s: %w", words, err)
			}
			h.certificates = append(h.certificates, c)
		}
		m.heard[words] = h
	}
	for _, u := range r.Under {
		c, err := chain.FromDER(u.Certificate)
		if err != nil {
			return Memory{}, fmt.Errorf("decode a CA certificate that stays: %w", err)
		}
		m.under = append(m.under, root{c, u.EndsAt})
	}
	return m, nil
}
