package store_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly-csi/mayfly/driver/mount"
	"github.com/mayfly-csi/mayfly/driver/store"
)

// A second process waits, whether it has found the state directory before the tmpfs was mounted on it or after.
func TestALockIsOneAcrossTheTmpfs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "volumes")
	first, err := store.New(dir, time.Now, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	unlock, err := first.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mount.Unmount(dir); err != nil {
			t.Error(err)
		}
	})
	second, err := store.New(dir, time.Now, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if early, err := second.Lock(ctx); err == nil {
		t.Fatal("a second process has the lock", early())
	}
	if err := unix.Flock(int(before.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
		t.Error("a process that was there before has the lock")
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if unlock, err = second.Lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
}
