package issue_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/issue"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// answer is a signer that gives one answer.
type answer func(ctx context.Context) error

func (a answer) Sign(ctx context.Context, _ signer.Request) (signer.Issued, error) {
	return signer.Issued{}, a(ctx)
}

// silent is the answer of an issuer that gives none.
func silent(ctx context.Context) error {
	<-ctx.Done()
	return signer.Errorf(signer.NotYet, "wait")
}

func TestIsSilent(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	volumes, err := store.New(t.TempDir(), time.Now, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	served := newPair(t)
	volumeOf := func(id, namespace string, issuer signer.Issuer, hasPair bool) *store.Volume {
		v := volumes.Get(id)
		v.SetSpec(volume.Volume{ID: id, Spec: spec.Spec{Pod: signer.Pod{Namespace: namespace}, Issuer: issuer}})
		if hasPair {
			v.SetPair(served.Chain.Leaf(), time.Now(), time.Now().Add(time.Hour))
		}
		return v
	}
	ca, cluster := signer.Issuer{Kind: "Issuer", Name: "ca"}, signer.Issuer{Kind: "ClusterIssuer", Name: "ca"}
	all := map[string]*store.Volume{
		"one": volumeOf("1", "shop", ca, true), "same": volumeOf("2", "shop", ca, true), "elsewhere": volumeOf("3", "other", ca, true),
		"cluster": volumeOf("4", "shop", cluster, true), "new": volumeOf("5", "shop", ca, false), "cluster elsewhere": volumeOf("6", "other", cluster, true),
	}
	for name, row := range map[string]struct {
		answers []answer
		by      []string // The volumes that get them.
		forget  string
		silent  []string
	}{
		"nothing was asked":        {},
		"no answer":                {[]answer{silent}, []string{"one"}, "", []string{"one", "same", "new"}},
		"none of a ClusterIssuer":  {[]answer{silent}, []string{"cluster"}, "", []string{"cluster", "cluster elsewhere"}},
		"none for the first pair":  {[]answer{silent}, []string{"new"}, "", nil}, // Its tries are brief anyway.
		"an answer to another one": {[]answer{silent, func(context.Context) error { return nil }}, []string{"one", "same"}, "", nil},
		"a denial": {[]answer{silent, func(context.Context) error { return signer.Errorf(signer.Denied, "no") }},
			[]string{"one", "same"}, "", nil},
		"not reached at once": {[]answer{func(context.Context) error { return signer.Errorf(signer.Unavailable, "refused") }},
			[]string{"one"}, "", nil},
		"not reached in time": {[]answer{func(ctx context.Context) error {
			<-ctx.Done()
			return signer.Errorf(signer.Unavailable, "cut off")
		}}, []string{"one"}, "", nil},
		"the volume is gone":            {[]answer{silent}, []string{"one"}, "one", nil},
		"one of two is gone":            {[]answer{silent, silent}, []string{"one", "same"}, "one", []string{"one", "same", "new"}},
		"an answer of another issuer's": {[]answer{silent, func(context.Context) error { return nil }}, []string{"one", "cluster"}, "", []string{"one", "same", "new"}},
	} {
		t.Run(name, func(t *testing.T) {
			var next answer
			i := issue.New(issue.Config{Signer: answer(func(ctx context.Context) error { return next(ctx) }), Log: log})
			defer i.Close()
			for n, a := range row.answers {
				next = a
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				if _, err := i.Sign(ctx, all[row.by[n]], issue.Attempt{}); err == nil {
					t.Error("signed")
				}
				cancel()
			}
			if row.forget != "" {
				i.Forget(all[row.forget], store.Record{})
			}
			want := map[string]bool{}
			for _, name := range row.silent {
				want[name] = true
			}
			for name, v := range all {
				if got := i.IsSilent(v); got != want[name] {
					t.Errorf("%s: %v", name, got)
				}
			}
		})
	}
}

// A volume whose last request was not answered looks briefly after a restart, too.
func TestIsSilentByTheRecord(t *testing.T) {
	volumes, err := store.New(t.TempDir(), time.Now, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	i := issue.New(issue.Config{Log: slog.New(slog.DiscardHandler)})
	defer i.Close()
	v := volumes.Get("csi-1")
	for _, row := range []struct {
		failure *store.Failure
		want    bool
	}{
		{nil, false}, {&store.Failure{Waiting: 1, Kind: signer.NotYet.String()}, true},
		{&store.Failure{Waiting: 1, Kind: signer.Unavailable.String()}, false}, {&store.Failure{Ended: 1}, false},
	} {
		v.Amend(func(r *store.Record) { r.Failure = row.failure })
		if got := i.IsSilent(v); got != row.want {
			t.Errorf("%+v: %v", row.failure, got)
		}
	}
}
