package renew_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/signer"
)

func TestAt(t *testing.T) {
	received := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	rows := []struct {
		lifetime, before time.Duration
		earliest, latest time.Duration // After receipt.
		part             int
	}{
		{time.Hour, 0, 36 * time.Minute, 40 * time.Minute, 0},
		{time.Hour, 10 * time.Minute, 45 * time.Minute, 50 * time.Minute, 0},
		{time.Hour, time.Hour, 36 * time.Minute, 40 * time.Minute, 0},
		{time.Hour, 2 * time.Hour, 36 * time.Minute, 40 * time.Minute, 0},
		{30 * time.Second, 0, 18 * time.Second, 20 * time.Second, 0},
		{time.Hour, 58 * time.Minute, 20 * time.Minute, 22*time.Minute + 14*time.Second, 0},
		{time.Hour, time.Hour - 1, 20 * time.Minute, 22*time.Minute + 14*time.Second, 0},
		{time.Hour, 37 * time.Minute, 20*time.Minute + 42*time.Second, 23 * time.Minute, 0},
		{10 * time.Second, 9 * time.Second, 10 * time.Second / 3, 3704 * time.Millisecond, 0},
		{time.Hour, 0, 37*time.Minute + 48*time.Second, 42 * time.Minute, 30},
		{time.Hour, 10 * time.Minute, 53*time.Minute + 27*time.Second, 59*time.Minute + 24*time.Second, 1}, // The part counts.
		{87600 * time.Hour, 0, 43800 * time.Hour * 9 / 10, 43800 * time.Hour, 50},
		{time.Hour, 0, 20 * time.Minute, 22*time.Minute + 14*time.Second, 99},
	}
	for _, row := range rows {
		spread := map[time.Time]bool{}
		for i := range 100 {
			at := renew.Rule{ID: fmt.Sprint("csi-", i), Before: row.before, Part: row.part}.At(received, received.Add(row.lifetime))
			if wait := at.Sub(received); wait < row.earliest || wait > row.latest {
				t.Errorf("lifetime %s, before %s: after %s, want %s to %s", row.lifetime, row.before, wait, row.earliest, row.latest)
			}
			spread[at.Truncate(row.lifetime/1000)] = true
		}
		if len(spread) < 30 {
			t.Errorf("lifetime %s: 100 volumes are due at %d times only", row.lifetime, len(spread))
		}
	}
	end := received.Add(time.Hour)
	if first, again := (renew.Rule{ID: "a"}).At(received, end), (renew.Rule{ID: "a"}).At(received, end); first != again {
		t.Error("the spread is not a function of the volume")
	}
}

// What renew-before says beyond the first third of a certificate's life is cut.
func TestIsCut(t *testing.T) {
	received := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for before, want := range map[time.Duration]bool{
		0: false, 10 * time.Minute: false, 37 * time.Minute: false, 38 * time.Minute: true, time.Hour - 1: true,
		time.Hour: false, // A third of its life counts instead.
	} {
		if got := (renew.Rule{Before: before}).IsCut(received, received.Add(time.Hour)); got != want {
			t.Errorf("%s before the end of an hour: cut %v", before, got)
		}
	}
	for part, want := range map[int]bool{1: false, 62: false, 63: true, 99: true} {
		if got := (renew.Rule{Part: part}).IsCut(received, received.Add(time.Hour)); got != want {
			t.Errorf("%d percent of an hour before its end: cut %v", part, got)
		}
	}
}

func TestBackoff(t *testing.T) {
	rows := []struct {
		kind  signer.Kind
		count int
		want  time.Duration
		alone time.Duration // Without a valid certificate.
	}{
		{signer.Unavailable, 1, 2 * time.Second, 2 * time.Second},
		{signer.Unavailable, 2, 4 * time.Second, 4 * time.Second},
		{signer.Unavailable, 4, 16 * time.Second, 16 * time.Second},
		{signer.Unavailable, 5, 32 * time.Second, 30 * time.Second},
		{signer.Unavailable, 9, 5 * time.Minute, 30 * time.Second},
		{signer.NotYet, 1000, 5 * time.Minute, 30 * time.Second},
		{signer.Denied, 1, time.Minute, time.Minute},
		{signer.Failed, 3, 4 * time.Minute, 4 * time.Minute},
		{signer.Invalid, 7, time.Hour, time.Hour},
		{signer.Denied, 1000, time.Hour, time.Hour},
	}
	for _, row := range rows {
		for served, want := range map[bool]time.Duration{true: row.want, false: row.alone} {
			if got := renew.Backoff("csi-1", row.kind, row.count, served); got < want || got > want*5/4 {
				t.Errorf("%s, failure %d, served %v: %s, want %s and up to a quarter more", row.kind, row.count, served, got, want)
			}
		}
	}
	if renew.Backoff("a", signer.Denied, 1, true) == renew.Backoff("b", signer.Denied, 1, true) {
		t.Error("two volumes try again at the same time")
	}
}
