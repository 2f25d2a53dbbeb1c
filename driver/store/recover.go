package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/mount"
	"github.com/mayfly-csi/mayfly/driver/request"
)

// Recover finds the volumes of an earlier process, and finishes interrupted removals. It reads only the node's files.
// A volume in another state directory under the kubelet's root, where a driver with other flags mounted it, stays
// there if ours returns true for its driver's name: running pods have that mount.
//
// It does not resolve what the pods asked for: see [Volume.SetSpec].
func (s *Store) Recover(kubeletRoot string, ours func(driver string) bool) (found []*Volume, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !e.IsDir() || CheckID(e.Name()) != nil {
			s.log.Warn("left alone: not a volume", "path", filepath.Join(s.dir, e.Name()))
			continue
		}
		if v := s.recover(s.dir, e.Name()); v != nil {
			found = append(found, v)
		}
	}
	elsewhere, err := s.recoverElsewhere(kubeletRoot, ours)
	return append(found, elsewhere...), err
}

// recoverElsewhere finds the volumes in other state directories.
func (s *Store) recoverElsewhere(kubeletRoot string, ours func(driver string) bool) (found []*Volume, err error) {
	if kubeletRoot == "" {
		return nil, nil
	}
	records, err := filepath.Glob(filepath.Join(kubeletRoot, "plugins", "*", "volumes", "*", files.RecordFile))
	if err != nil {
		return nil, err
	}
	for _, path := range records {
		stateDir, id := filepath.Dir(filepath.Dir(path)), filepath.Base(filepath.Dir(path))
		if stateDir == s.dir {
			continue
		}
		if err := s.check(files.Dir(filepath.Dir(path)), id, ours); err != nil {
			s.log.Warn("a volume in another state directory is not renewed", "path", filepath.Dir(path), "error", err)
			continue
		}
		if v := s.recover(stateDir, id); v != nil {
			found = append(found, v)
		}
	}
	return found, nil
}

// check returns why a volume in another state directory does not belong to this driver; nil if it does.
func (s *Store) check(dir files.Dir, id string, ours func(driver string) bool) error {
	mounted, err := mount.Is(string(dir))
	if err == nil && !mounted {
		err = errors.New("nothing is mounted there")
	}
	if err != nil {
		return err
	}
	record, err := ReadRecord(dir)
	switch {
	case err != nil:
		return err
	case record.Asked.ID != id:
		return fmt.Errorf("its record is that of volume %s", record.Asked.ID)
	case !ours(record.Asked.Driver):
		return fmt.Errorf("it is of driver %q, which is none of this driver's names", record.Asked.Driver)
	case s.Find(id) != nil:
		return errors.New("this driver has a volume of that name in its own state directory")
	}
	return nil
}

// recover recovers one volume of a state directory; it returns nil if the volume has no content.
func (s *Store) recover(stateDir, id string) *Volume {
	log, dir := s.log.With("volume", id), files.Dir(filepath.Join(stateDir, id))
	mounted, err := mount.Is(string(dir))
	if err != nil {
		log.Error("left alone: its mount can't be read", "error", err)
		return nil
	}
	if !mounted {
		if err := removeUnmounted(dir); err != nil {
			s.log.Warn("left alone: not a volume", "path", dir, "error", err)
		}
		return nil
	}
	record, err := ReadRecord(dir)
	log = s.log.With(Attr(id, record.Asked))
	switch {
	case errors.Is(err, fs.ErrNotExist): // A crash between the mount and the first record: it is bound nowhere.
		if err := removeDir(dir); err != nil {
			log.Error("an empty volume can't be removed", "error", err)
		}
		return nil
	case err != nil:
		log.Error("this volume is kept as it is, and not renewed until the kubelet publishes it again", "error", err)
	case record.Version > RecordVersion:
		log.Warn("the record is of a newer driver: the attempt under way begins anew", "version", record.Version)
	}
	if err := dir.Recover(); err != nil {
		log.Error("the volume's files are left as they are", "error", err)
	}
	v := s.get(stateDir, id)
	v.record = record
	if err := v.recoverPair(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Error("the pair in force can't be read; it is renewed as scheduled", "error", err)
	}
	return v
}

// removeUnmounted removes a volume's directory after a crash before the mount or after the unmount, after a reboot, and
// after another process has unmounted the tmpfs: then it has the record of what was met since.
func removeUnmounted(dir files.Dir) error {
	if _, err := dir.Record(); err == nil {
		return removeDir(dir)
	}
	return os.Remove(string(dir))
}

// recoverPair sets the validity of the pair in force.
func (v *Volume) recoverPair() error {
	defer v.LockFiles()()
	attempt, text, err := v.dir.InForce()
	if err != nil {
		return err
	}
	chain, err := request.DecodeChain(text, v.now())
	if err != nil {
		return err
	}
	end := chain.End() // Of the path without its CA, which is not stored with the pair.
	if recorded := v.record.EndsAt; attempt != v.record.Attempt && !recorded.IsZero() && recorded.Before(end) {
		end = recorded
	}
	v.SetPair(chain.Leaf(), chain.Begin(), end)
	return nil
}
