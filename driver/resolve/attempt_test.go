package resolve_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/mayfly-csi/mayfly/driver/resolve"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// profiles are what the operator sets now.
type profiles struct{ now volume.Profiles }

func (*profiles) Run(context.Context, func(*volume.Profiles)) error { return nil }
func (*profiles) Valid() bool                                       { return true }

func (p *profiles) Get(context.Context) (*volume.Profiles, error) {
	now := p.now
	return &now, nil
}

// set sets the profile web.
func (p *profiles) set(web spec.Profile) {
	p.now.Profiles = spec.Profiles{Profiles: map[string]spec.Profile{"web": web}}
}

// An attempt writes the record only if what the volume asks for has changed, through its profile.
func TestAnAttemptRecordsWhatHasChanged(t *testing.T) {
	now := &profiles{}
	r, volumes, dir := newResolver(t, resolve.Config{Profiles: now})

	now.set(spec.Profile{"duration": "1h"})
	v := volumes.Get("csi-1")
	asked := asked(map[string]string{"dns-names": "web.test", "issuer-name": "ca", "profile": "web"})
	asked.Dialect = spec.DialectOf(asked.Driver)
	first, err := r.Defaults(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	opened, err := volume.Parse(asked, first)
	if err != nil {
		t.Fatal(err)
	}
	asked.Profile = opened.Profile
	v.SetSpec(opened)
	if err := v.Update(func(record *store.Record) { record.SetAsked(asked, opened) }); err != nil {
		t.Fatal(err)
	}
	same := func(*store.Record) {}
	for _, step := range []struct {
		name   string
		record func(*store.Record)
		web    spec.Profile
		writes bool
	}{
		{"the first attempt", same, spec.Profile{"duration": "1h"}, false},
		{"another duration", same, spec.Profile{"duration": "2h"}, true},
		{"that once more", same, spec.Profile{"duration": "2h"}, false},
		{"a profile that is not on record", func(r *store.Record) { r.Asked.Profile = nil }, spec.Profile{"duration": "2h"}, true},
		{"a resolution that is not on record", func(r *store.Record) { r.Resolved = nil }, spec.Profile{"duration": "2h"}, true},
		{"the duration of before", same, spec.Profile{"duration": "1h"}, true},
	} {
		before := stat(t, filepath.Join(dir, "csi-1"))
		v.Amend(step.record)
		now.set(step.web)
		if err := r.Attempt(t.Context(), v); err != nil {
			t.Fatal(err)
		}
		// Each write makes another file, which is renamed.
		if wrote := !os.SameFile(before, stat(t, filepath.Join(dir, "csi-1"))); wrote != step.writes {
			t.Errorf("%s: wrote the record: %t", step.name, wrote)
		}
		onRecord, err := v.Record().ResolvedSpec()
		if err != nil || onRecord.Duration != v.Spec().Duration {
			t.Errorf("%s: %v is on record, %v counts (%v)", step.name, onRecord.Duration, v.Spec().Duration, err)
		}
	}
}

// stat returns the file of a volume's record.
func stat(t *testing.T, volume string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(filepath.Join(volume, "record.json"))
	if err != nil {
		t.Fatal(err)
	}
	return info
}
