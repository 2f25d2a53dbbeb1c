package store_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

func TestTheRecordComesBack(t *testing.T) {
	d := files.Dir(t.TempDir())
	if _, err := store.ReadRecord(d); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no record: %v", err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	want := store.Record{
		Asked:   volume.Asked{ID: "csi-1", Target: "/t", Asked: spec.Asked{Attributes: map[string]string{"a": "b"}}, Group: "7", MountFlags: []string{"x"}},
		Attempt: "abc", Finished: []string{"x", "y"}, RenewAt: at,
		Failure: &store.Failure{Kind: "k", Reason: "r", Count: 3, At: at, RetryAt: at},
	}
	if err := store.WriteRecord(d, want); err != nil {
		t.Fatal(err)
	}
	got, err := store.ReadRecord(d)
	if err != nil || got.Version != store.RecordVersion || got.Asked.Target != "/t" || got.Attempt != "abc" ||
		!slices.Equal(got.Finished, want.Finished) || !got.RenewAt.Equal(at) || *got.Failure != *want.Failure {
		t.Errorf("got %+v, %v", got, err)
	}
	info, err := os.Stat(filepath.Join(string(d), "record.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// A renewal is overdue a tenth of the certificate's lifetime after its time, or an hour if that is less.
func TestOverdue(t *testing.T) {
	at := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	for name, row := range map[string]struct {
		lifetime, renewAfter, late time.Duration
	}{
		"an hour":     {time.Hour, 40 * time.Minute, 6 * time.Minute},
		"a day":       {24 * time.Hour, 16 * time.Hour, time.Hour},
		"ten hours":   {10 * time.Hour, 400 * time.Minute, time.Hour},
		"90 days":     {90 * 24 * time.Hour, 60 * 24 * time.Hour, time.Hour},
		"ten seconds": {10 * time.Second, 6 * time.Second, time.Second},
	} {
		r := store.Record{IssuedAt: at, EndsAt: at.Add(row.lifetime), RenewAt: at.Add(row.renewAfter)}
		since := r.RenewAt.Add(row.late)
		if r.Overdue(since.Add(-time.Nanosecond)) || !r.Overdue(since) {
			t.Errorf("%s: not overdue since %s", name, since)
		}
	}
	if (store.Record{IssuedAt: at}).Overdue(at.AddDate(1, 0, 0)) || (store.Record{RenewAt: at}).Overdue(at.AddDate(1, 0, 0)) {
		t.Error("without a certificate")
	}
}

func TestRecordsThatAreNotOurs(t *testing.T) {
	rows := []struct {
		name, text string
		want       error
		asked      string
	}{
		{"empty", "", store.ErrDamaged, ""},
		{"truncated", `{"version":1,"asked":{"id":"csi-1"`, store.ErrDamaged, ""},
		{"something else", `{"hello":1}`, store.ErrDamaged, ""},
		{"a state of other types", `{"version":1,"asked":{"id":"csi-1"},"attempt":5}`, store.ErrDamaged, ""},
		{"newer", `{"version":2,"asked":{"id":"csi-1","target":"/t"},"attempt":{"new":"shape"}}`, nil, "csi-1"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			d := files.Dir(t.TempDir())
			if err := os.WriteFile(filepath.Join(string(d), "record.json"), []byte(row.text), 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := store.ReadRecord(d)
			if !errors.Is(err, row.want) || r.Asked.ID != row.asked || r.Attempt != "" {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

// A signer that is away for long must not make the record grow for ever.
func TestTheRecordNamesTheLastAttempts(t *testing.T) {
	var r store.Record
	r.Finish("")
	for i := range 40 {
		before := r.Finished
		r.Finish(fmt.Sprint(i))
		if len(before) > 0 && before[0] != fmt.Sprint(max(0, i-32)) {
			t.Errorf("after %d: what was there before changed to %v", i, before)
		}
	}
	if len(r.Finished) != 32 || r.Finished[0] != "8" || r.Finished[31] != "39" {
		t.Errorf("%d: %v", len(r.Finished), r.Finished)
	}
	r.Forget([]string{"8", "39", "x"})
	if len(r.Finished) != 30 || r.Finished[0] != "9" || r.Finished[29] != "38" {
		t.Errorf("%d: %v", len(r.Finished), r.Finished)
	}
}

// What a volume was resolved to comes back.
func TestTheResolutionComesBack(t *testing.T) {
	d := files.Dir(t.TempDir())
	asked := volume.Asked{ID: "csi-1", Target: "/t"}
	spec := volume.Volume{ID: "csi-1", Target: "/t", Spec: spec.Spec{Names: spec.Names{DNSNames: []string{"web"}}, Duration: time.Hour}}
	var r store.Record
	r.SetAsked(asked, spec)
	if err := store.WriteRecord(d, r); err != nil {
		t.Fatal(err)
	}
	r, err := store.ReadRecord(d)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.ResolvedSpec(); err != nil || !reflect.DeepEqual(got, spec) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := (store.Record{Asked: asked}).ResolvedSpec(); err == nil {
		t.Errorf("of a record without: %+v", got)
	}
}
