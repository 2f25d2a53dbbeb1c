package driver_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/mount"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// interrupt stops the driver, changes what lies in the volume, and starts the driver with a signer that is away.
func (n *node) interrupt(v kubelet.Volume, change func(dir files.Dir, r *store.Record) error) {
	n.t.Helper()
	if err := n.stop(); err != nil {
		n.t.Fatal(err)
	}
	dir, r := files.Dir(n.inState(v, "")), n.record(v)
	if err := errors.Join(change(dir, &r), store.WriteRecord(dir, r)); err != nil {
		n.t.Fatal(err)
	}
	n.signer.from(refuse(signer.Unavailable, "the signer is away"))
	n.start()
}

// reports demands that the volume's health names the certificate that the pod has, and that it is well.
func (n *node) reports(v kubelet.Volume, target string) {
	n.t.Helper()
	health, err := n.Health(n.t.Context(), n.driver, v)
	if err != nil {
		n.t.Fatal(err)
	}
	serial := pair(n.t, target).SerialNumber.Text(16)
	for _, one := range health {
		if !strings.Contains(one.GetMessage(), serial) {
			n.t.Errorf("the pod has certificate %s; health: %s", serial, one.GetMessage())
		}
	}
}

// Nothing was in force yet: a pod must not start with an empty volume.
func TestACrashBeforeTheFirstPairIsInForce(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	target := n.publish(v)
	n.interrupt(v, func(dir files.Dir, r *store.Record) error {
		attempt, _, err := dir.InForce()
		r.Attempt, r.IssuedAt, r.RenewAt = attempt, time.Time{}, time.Time{}
		return errors.Join(err, mount.Unmount(target), os.Remove(filepath.Join(dir.Data(), files.Current)))
	})
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second) // The driver answers three seconds before.
	defer cancel()
	if _, err := n.Publish(ctx, n.driver, v); err == nil || !strings.Contains(err.Error(), "the signer is away") {
		t.Errorf("publish: %v", err)
	}
	if entries, err := os.ReadDir(target); err == nil && len(entries) > 0 {
		t.Errorf("the pod sees %v", entries)
	}
	n.signer.from(nil)
	if err := n.stop(); err != nil { // It writes the record, too.
		t.Fatal(err)
	}
	n.rest(v)
	n.start()
	pair(t, n.publish(v))
}

// The pair of a renewal is beside the old one, which is in force: that one counts.
func TestACrashBeforeALaterPairIsInForce(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	target := n.publish(v)
	before := pair(t, target)
	n.interrupt(v, func(dir files.Dir, r *store.Record) error {
		r.Attempt = "next"
		generation := filepath.Join(dir.Data(), "..next.0")
		return errors.Join(os.WriteFile(n.inState(v, "pair.next.0"), []byte("half a pair"), 0o600),
			os.Mkdir(generation, 0o700), os.Symlink("..next.0", filepath.Join(dir.Data(), files.Current+".new")))
	})
	if exists(t, n.inState(v, "pair.next.0")) || exists(t, n.inState(v, "data/..next.0")) {
		t.Error("what the installation left is there")
	}
	n.publish(v)
	until(t, "the signer is asked", func() bool { return len(n.signer.asked()) > 1 })
	if !pair(t, target).Equal(before) {
		t.Error("the pair changed")
	}
	n.reports(v, target)
	n.signer.from(nil)
	if err := n.stop(); err != nil { // It writes the record, too.
		t.Fatal(err)
	}
	n.rest(v)
	n.start()
	until(t, "the renewal", func() bool { return !pair(t, target).Equal(before) })
}

// The pair is in force, and the record does not say so yet: the attempt ends without the signer.
func TestACrashAfterThePairIsInForce(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	target := n.publish(v)
	before := pair(t, target)
	n.interrupt(v, func(dir files.Dir, r *store.Record) error {
		attempt, _, err := dir.InForce()
		r.Attempt, r.IssuedAt, r.EndsAt, r.RenewAt = attempt, time.Time{}, time.Time{}, time.Time{}
		return errors.Join(err, dir.WritePendingKey([]byte("the key of the pair")))
	})
	until(t, "the attempt has ended", func() bool { return n.record(v).Attempt == "" })
	if r := n.record(v); r.Failure != nil || r.IssuedAt.IsZero() || !r.RenewAt.After(r.IssuedAt) || r.IssuedAt.After(time.Now()) {
		t.Errorf("the record is %+v", r)
	}
	until(t, "the pending key is gone", func() bool { return !exists(t, n.inState(v, "pending.key")) })
	n.publish(v)
	if asked := len(n.signer.asked()); asked != 1 || !pair(t, target).Equal(before) {
		t.Errorf("the signer was asked %d times", asked)
	}
	n.reports(v, target)
}

// A pair that this driver can't read, as one that a driver with other limits took, is renewed as it was planned.
func TestAPairThatCantBeReadIsRenewed(t *testing.T) {
	n := newNode(t, withPods(newPods()))
	v := web("csi.mayfly.dev/continue-on-not-ready=true")
	target := n.publish(v)
	before := pair(t, target)
	n.interrupt(v, func(dir files.Dir, r *store.Record) error {
		r.RenewAt = time.Now()
		current, err := os.Readlink(filepath.Join(dir.Data(), files.Current))
		kept := n.inState(v, "pair."+strings.TrimPrefix(current, ".."))
		return errors.Join(err, os.Remove(kept), os.WriteFile(kept, []byte("?"), 0o600)) // It is a file of the pod, too.
	})
	until(t, "the renewal begins", func() bool { return len(n.signer.asked()) > 1 })
	if !pair(t, target).Equal(before) {
		t.Error("the pair changed")
	}
	n.signer.from(nil)
	until(t, "the renewal", func() bool { return !pair(t, target).Equal(before) })
	n.reports(v, target)
}

// Drivers before this one kept the pair under one name.
func TestAPairOfAnOlderDriverRotatesOn(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	target := n.publish(v)
	before := pair(t, target)
	n.interrupt(v, func(dir files.Dir, _ *store.Record) error {
		current, err := os.Readlink(filepath.Join(dir.Data(), files.Current))
		old := filepath.Join(dir.Data(), "..123456")
		link := filepath.Join(dir.Data(), files.Current+".old")
		generation := strings.TrimPrefix(current, "..")
		return errors.Join(err, os.Rename(n.inState(v, "pair."+generation), n.inState(v, "pair.pem")),
			os.Rename(n.inState(v, "trust."+generation), n.inState(v, "trust.json")),
			os.Rename(filepath.Join(dir.Data(), current), old), os.Symlink("..123456", link), os.Rename(link, filepath.Join(dir.Data(), files.Current)))
	})
	n.publish(v)
	if asked := len(n.signer.asked()); asked != 1 || !pair(t, target).Equal(before) {
		t.Errorf("the signer was asked %d times", asked)
	}
	n.signer.from(nil)
	n.renew(v)
	until(t, "the renewal", func() bool { return !pair(t, target).Equal(before) })
	n.reports(v, target)
}

// The record of a driver that went by the leaf alone does not say when the path ends: the renewal is planned anew.
func TestARecordWithoutTheEndOfThePath(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	target := n.publish(v)
	before := pair(t, target)
	n.interrupt(v, func(_ files.Dir, r *store.Record) error {
		r.EndsAt, r.RenewAt = time.Time{}, r.RenewAt.Add(time.Hour)
		return nil
	})
	n.reports(v, target)
	n.publish(v)
	n.signer.from(nil)
	n.renew(v)
	until(t, "the renewal", func() bool { return !pair(t, target).Equal(before) })
	until(t, "the end of the path is on record", func() bool { return !n.record(v).EndsAt.IsZero() })
}
