package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/store"
)

// FuzzReadRecord: what is no record is damaged, and what is one can be written and read again.
func FuzzReadRecord(f *testing.F) {
	for _, text := range []string{
		"", "{", "null", "[]", `"x"`, `{"version":1}`, `{"version":0,"asked":{"id":"csi-1"}}`, `{"version":"1","asked":{"id":"csi-1"}}`,
		`{"version":1,"asked":{"id":"csi-1","target":"/t","attributes":{"csi.mayfly.dev/issuer-name":"ca"},"group":"1","mountFlags":["context=x"]}}`,
		`{"version":1,"asked":{"id":"csi-1"},"attempt":"a","finished":["b","c"],"renewAt":"2026-06-01T12:00:00Z"}`,
		`{"version":1,"asked":{"id":"csi-1"},"failure":{"kind":"request denied","reason":"x","count":1,"at":"2026-06-01T12:00:00Z","retryAt":"2026-06-01T12:01:00+02:00"}}`,
		`{"version":2,"asked":{"id":"csi-1"},"attempt":7}`, `{"version":1,"asked":{"id":"csi-1"},"attempt":7}`,
	} {
		f.Add([]byte(text))
	}
	dir := files.Dir(f.TempDir())
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(filepath.Join(string(dir), "record.json"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := store.ReadRecord(dir)
		if err != nil {
			if !errors.Is(err, store.ErrDamaged) || !reflect.DeepEqual(r, store.Record{}) {
				t.Errorf("%+v, %v", r, err)
			}
			return
		}
		if r.Asked.ID == "" || r.Version < 1 || r.Version > store.RecordVersion && r.Attempt != "" {
			t.Errorf("taken for a record: %+v", r)
		}
		if err := store.WriteRecord(dir, r); err != nil {
			t.Fatalf("write it again: %v", err)
		}
		again, err := store.ReadRecord(dir)
		if err != nil || again.Asked.ID != r.Asked.ID || again.Attempt != r.Attempt || !again.RenewAt.Equal(r.RenewAt) || len(again.Asked.Attributes) != len(r.Asked.Attributes) {
			t.Errorf("%+v came back as %+v (%v)", r, again, err)
		}
	})
}
