package files

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mayfly-csi/mayfly/driver/volume"
)

// RecordVersion is the version of the record that this driver writes. Version and Asked mean the same in every version.
const RecordVersion = 1

// A Record is what the driver must know of a volume after a restart. It has no secrets but a password that the pod has among its attributes.
type Record struct {
	Version int          `json:"version"`
	Asked   volume.Asked `json:"asked"`

	Attempt  string    `json:"attempt,omitempty"`  // The id of the attempt under way: in the record before the signer sees it.
	Finished []string  `json:"finished,omitempty"` // Ids of attempts whose requests the signer may still keep, oldest first.
	IssuedAt time.Time `json:"issuedAt,omitzero"`  // When the pair was received; zero if there is none.
	EndsAt   time.Time `json:"endsAt,omitzero"`    // When the pair's path to its CA ends; zero: as the pair says.
	RenewAt  time.Time `json:"renewAt,omitzero"`   // When the pair is to be renewed; zero if there is none.
	Stalled  int       `json:"stalled,omitempty"`  // Answers in a row that ended no later than the pair before.
	Told     []string  `json:"told,omitempty"`     // Warnings of the last answer, each told once.
	Failure  *Failure  `json:"failure,omitempty"`  // What the last attempt met; nil after a success.
}

// A Failure is why the last attempt brought no certificate, and how long the volume backs off.
type Failure struct {
	Kind    string    `json:"kind"`
	Reason  string    `json:"reason"`
	Count   int       `json:"count"`             // Of all failures in a row.
	Ended   int       `json:"ended,omitempty"`   // Of those that ended their attempt.
	Waiting int       `json:"waiting,omitempty"` // Of those that did not, since the last one that did.
	At      time.Time `json:"at"`
	RetryAt time.Time `json:"retryAt"`
}

// ErrDamaged is the error of a record that can't be understood.
var ErrDamaged = errors.New("the record is damaged")

// WriteRecord replaces the record.
func (d Dir) WriteRecord(r Record) error {
	r.Version = RecordVersion
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the record: %w", err)
	}
	return d.write(RecordFile, text)
}

// ReadRecord is the record; the error is [fs.ErrNotExist] or [ErrDamaged]. Of a newer driver's record it takes
// what it can trust: Version and Asked.
func (d Dir) ReadRecord() (Record, error) {
	text, err := os.ReadFile(d.path(RecordFile))
	if err != nil {
		return Record{}, fmt.Errorf("read the record: %w", err)
	}
	var stable struct {
		Version int          `json:"version"`
		Asked   volume.Asked `json:"asked"`
	}
	if err := json.Unmarshal(text, &stable); err != nil || stable.Version < 1 || stable.Asked.ID == "" {
		return Record{}, fmt.Errorf("read %s: %w", d.path(RecordFile), errors.Join(ErrDamaged, err))
	}
	if stable.Version > RecordVersion {
		return Record{Version: stable.Version, Asked: stable.Asked}, nil
	}
	var r Record
	if err := json.Unmarshal(text, &r); err != nil {
		return Record{}, fmt.Errorf("read %s: %w", d.path(RecordFile), errors.Join(ErrDamaged, err))
	}
	return r, nil
}
