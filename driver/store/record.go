package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/volume"
)

// RecordVersion is the version of the record that this driver writes. Version and Asked mean the same in every
// version.
const RecordVersion = 1

// A Record has what the driver needs of a volume after a restart. It has no secrets except a password among the pod's
// attributes. Its slices and pointers are replaced, never changed.
type Record struct {
	Version int          `json:"version"`
	Asked   volume.Asked `json:"asked"`

	// Resolved is the last resolution of Asked by flags and profiles, as volume.Encode writes it. It is used when the
	// current ones don't fit.
	Resolved json.RawMessage `json:"resolved,omitempty"`

	Attempt  string    `json:"attempt,omitempty"`  // The id of the attempt under way: written before it is sent.
	Finished []string  `json:"finished,omitempty"` // Ids of attempts whose requests may still exist, oldest first.
	IssuedAt time.Time `json:"issuedAt,omitzero"`  // When the pair was received; zero if there is none.
	EndsAt   time.Time `json:"endsAt,omitzero"`    // When the pair's path to its CA ends; zero: not known.
	RenewAt  time.Time `json:"renewAt,omitzero"`   // When the pair is to be renewed; zero if there is none.
	Stalled  int       `json:"stalled,omitempty"`  // Answers in a row that ended no later than the pair before.
	Warned   []string  `json:"told,omitempty"`     // Warnings of the last answer that the pod was sent.
	Failure  *Failure  `json:"failure,omitempty"`  // The failure of the last attempt; nil after a success.

	ReportedEnd time.Time `json:"reportedEnd,omitzero"` // The end of a pair of which the pod was sent an Event.
}

// A Failure says why the last attempt failed, and how long the volume backs off.
type Failure struct {
	Kind    string    `json:"kind"`
	Reason  string    `json:"reason"`
	Count   int       `json:"count"`             // Of all failures in a row.
	Ended   int       `json:"ended,omitempty"`   // Of the last kind that ended its attempt.
	EndedBy string    `json:"endedBy,omitempty"` // That kind.
	Waiting int       `json:"waiting,omitempty"` // Of the last kind, if it did not.
	Attempt string    `json:"attempt,omitempty"` // The id of the attempt that failed.
	At      time.Time `json:"at"`
	RetryAt time.Time `json:"retryAt"`
}

// Ends reports whether the failure ended its attempt.
func (f Failure) Ends() bool { return f.EndedBy == f.Kind }

// Tries returns how often an attempt was tried, in words.
func (f Failure) Tries() string {
	if f.Count == 1 {
		return "tried once"
	}
	return fmt.Sprintf("tried %d times", f.Count)
}

// SetAsked sets what the pod asked for, and its resolution.
func (r *Record) SetAsked(asked volume.Asked, spec volume.Volume) {
	r.Asked, r.Resolved = asked, volume.Encode(spec)
}

// ResolvedSpec returns the last resolution.
func (r Record) ResolvedSpec() (volume.Volume, error) { return volume.Decode(r.Resolved) }

// Overdue reports whether the renewal was due well before t: by a tenth of the certificate's lifetime, or by an hour if
// that is less.
func (r Record) Overdue(t time.Time) bool {
	late := min(r.EndsAt.Sub(r.IssuedAt)/10, time.Hour)
	return !r.RenewAt.IsZero() && !r.EndsAt.IsZero() && !r.RenewAt.Add(late).After(t)
}

// mostFinished limits Finished. The requests of older attempts are deleted with the pod, which owns them.
const mostFinished = 32

// Finish adds an ended attempt to Finished.
func (r *Record) Finish(attempt string) {
	if attempt == "" {
		return
	}
	all := append(slices.Clone(r.Finished), attempt)
	r.Finished = all[max(0, len(all)-mostFinished):]
}

// Forget removes attempts from Finished.
func (r *Record) Forget(attempts []string) {
	gone := func(id string) bool { return slices.Contains(attempts, id) }
	r.Finished = slices.DeleteFunc(slices.Clone(r.Finished), gone)
}

// ErrDamaged is the error of a record that can't be decoded.
var ErrDamaged = errors.New("the record is damaged")

// WriteRecord replaces the record.
func WriteRecord(dir files.Dir, r Record) error {
	r.Version = RecordVersion
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the record: %w", err)
	}
	return dir.WriteRecord(text)
}

// ReadRecord reads the record; the error is [fs.ErrNotExist] or [ErrDamaged]. Of a newer driver's record it returns
// only Version and Asked, which mean the same in every version.
func ReadRecord(dir files.Dir) (Record, error) {
	text, err := dir.Record()
	if err != nil {
		return Record{}, fmt.Errorf("read the record: %w", err)
	}
	r, err := decodeRecord(text)
	if err != nil {
		return Record{}, fmt.Errorf("read the record in %s: %w", dir, err)
	}
	return r, nil
}

// decodeRecord decodes a record of this version, or the stable part of a newer one.
func decodeRecord(text []byte) (r Record, err error) {
	if err := json.Unmarshal(text, &r); err == nil && r.Version == RecordVersion && r.Asked.ID != "" {
		return r, nil
	}
	var stable struct {
		Version int          `json:"version"`
		Asked   volume.Asked `json:"asked"`
	}
	if err := json.Unmarshal(text, &stable); err != nil || stable.Version <= RecordVersion || stable.Asked.ID == "" {
		return Record{}, errors.Join(ErrDamaged, err)
	}
	return Record{Version: stable.Version, Asked: stable.Asked}, nil
}
