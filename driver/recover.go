package driver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/mount"
	"github.com/mayfly-csi/mayfly/driver/volume"
)

// recover takes up what lies in the state directory: it asks nobody but the node's own files.
func (d *Driver) recover() error {
	entries, err := os.ReadDir(d.StateDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || volumeID(e.Name()) != nil {
			d.Log.Warn("left alone: no volume of ours", "path", filepath.Join(d.StateDir, e.Name()))
			continue
		}
		d.takeUp(d.StateDir, e.Name())
	}
	return d.recoverElsewhere()
}

// recoverElsewhere takes up the volumes of this driver's names that lie in another state directory under the kubelet's
// root, where a driver with other flags mounted them: the pods that run have those mounts.
func (d *Driver) recoverElsewhere() error {
	if d.KubeletRoot == "" {
		return nil
	}
	records, err := filepath.Glob(filepath.Join(d.KubeletRoot, "plugins", "*", "volumes", "*", files.RecordFile))
	if err != nil {
		return err
	}
	for _, path := range records {
		stateDir, id := filepath.Dir(filepath.Dir(path)), filepath.Base(filepath.Dir(path))
		if stateDir == d.StateDir {
			continue
		}
		if err := d.isOurs(files.Dir(filepath.Dir(path)), id); err != nil {
			d.Log.Warn("a volume in another state directory is not renewed", "path", filepath.Dir(path), "error", err)
			continue
		}
		d.takeUp(stateDir, id)
	}
	return nil
}

// isOurs says why a volume in another state directory is not one of this driver's.
func (d *Driver) isOurs(dir files.Dir, id string) error {
	mounted, err := mount.Is(string(dir))
	if err == nil && !mounted {
		err = errors.New("nothing is mounted there")
	}
	if err != nil {
		return err
	}
	record, err := dir.ReadRecord()
	switch {
	case err != nil:
		return err
	case record.Asked.ID != id:
		return fmt.Errorf("its record is that of volume %s", record.Asked.ID)
	case !slices.ContainsFunc(d.Names, func(n Name) bool { return n.Name == record.Asked.Driver }):
		return fmt.Errorf("it is of driver %q, which is none of this driver's names", record.Asked.Driver)
	case d.find(id) != nil:
		return errors.New("this driver has a volume of that name in its own state directory")
	}
	return nil
}

// takeUp holds one volume of a state directory again, or removes what is left of it.
func (d *Driver) takeUp(stateDir, id string) {
	log := d.Log.With("volume", id)
	dir := files.Dir(filepath.Join(stateDir, id))
	mounted, err := mount.Is(string(dir))
	if err != nil {
		log.Error("left alone: can't tell whether it is mounted", "error", err)
		return
	}
	if !mounted { // A crash before the mount or after the unmount; or a reboot.
		if err := os.Remove(string(dir)); err != nil {
			log.Warn("left alone: no volume of ours", "path", dir, "error", err)
		}
		return
	}
	record, err := dir.ReadRecord()
	switch {
	case errors.Is(err, fs.ErrNotExist): // A crash between the mount and the first record: no target shows it yet.
		if err := erase(dir); err != nil {
			log.Error("an empty volume can't be removed", "error", err)
		}
		return
	case err != nil:
		log.Error("this volume is kept as it is, and not renewed until the kubelet publishes it again", "error", err)
	case record.Version > files.RecordVersion:
		log.Warn("the record is of a newer driver: what was under way is begun anew", "version", record.Version)
	}
	if err := dir.Recover(); err != nil {
		log.Error("the volume's files are left as they are", "error", err)
	}
	d.resume(d.holdIn(stateDir, id), record)
}

// resume goes on with a volume whose tmpfs is there.
func (d *Driver) resume(h *held, record files.Record) {
	h.record = record
	if v, err := volume.Parse(record.Asked, d.before()); err == nil {
		h.volume = v
	} else if record.Asked.ID != "" {
		d.Log.Error("this volume is kept as it is, and not renewed: its attributes are not understood", "volume", h.id, "error", err)
	}
	d.resumePair(h)
	if target := record.Asked.Target; target != "" && abandoned(target) {
		d.clear(h)
		return
	}
	if h.volume.StartsWithout && h.pair == nil && record.Attempt == "" && d.Pods != nil {
		d.expect(h)
	}
	if h.volume.ID != "" {
		d.trim(h, d.KeepRequests)
		d.follow(h)
	}
	d.schedule(h)
}

// resumePair finds what pair the pod has, and until when. A record of a driver that went by the leaf alone is planned anew.
func (d *Driver) resumePair(h *held) {
	attempt, pair, err := h.inForce()
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			d.Log.Error("the pair that the pod has can't be read; it is renewed as planned", "volume", h.id, "error", err)
		}
		return
	}
	end := pair.Chain.End() // Of the path without its CA, which is not beside the pair.
	if attempt != h.record.Attempt {
		end = sooner(end, h.record.EndsAt)
	}
	h.have(pair.Chain.Leaf(), pair.Chain.Begin(), end)
	if r := &h.record; h.volume.ID != "" && r.EndsAt.IsZero() && !r.IssuedAt.IsZero() {
		r.RenewAt = sooner(r.RenewAt, renewalAt(h, r.IssuedAt, end))
	}
}
