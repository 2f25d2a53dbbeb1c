package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mayfly-csi/mayfly/driver/volume"
)

// A Set is all files that the pod sees, by name. Names have no slash and do not begin with a dot.
type Set map[string][]byte

// Current is the link to the generation of files that is in force: what a reader opens once to read a matching pair.
const Current = "..data"

// Write replaces all files of the pod at once, as the kubelet does for Secrets (kubernetes pkg/volume/util/atomic_writer.go).
// The generation before stays until Settle, or the next one, so a reader on its way through the link finds what it is looking for.
//
// The owner says who may read them. If Write fails, the files are as before.
func (d Dir) Write(set Set, owner volume.Owner) error {
	if err := d.replace(set, owner); err != nil {
		return fmt.Errorf("write the files: %w", err)
	}
	return nil
}

func (d Dir) replace(set Set, owner volume.Owner) error {
	if err := os.Mkdir(d.Data(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	before, err := os.Readlink(filepath.Join(d.Data(), Current))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := d.prune(before); err != nil {
		return err
	}
	next, err := d.generation(set, owner)
	if err != nil {
		return err
	}
	if err := d.swap(next); err != nil {
		return err
	}
	if err := d.link(set); err != nil {
		return err
	}
	return give(d.Data(), owner, true)
}

// Settle removes the generation before: who watches one of its files is told so that it is gone, as by the kubelet, which removes it at once.
func (d Dir) Settle() error {
	inForce, err := os.Readlink(filepath.Join(d.Data(), Current))
	if err != nil {
		return fmt.Errorf("settle the files: %w", err)
	}
	if err := d.prune(inForce); err != nil {
		return fmt.Errorf("settle the files: %w", err)
	}
	return nil
}

// generation writes the set into a directory of its own, and is the directory's name.
func (d Dir) generation(set Set, owner volume.Owner) (string, error) {
	dir, err := os.MkdirTemp(d.Data(), "..")
	if err != nil {
		return "", err
	}
	if err := fill(dir, set, owner); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return filepath.Base(dir), nil
}

func fill(dir string, set Set, owner volume.Owner) error {
	for name, content := range set {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
		if err := give(path, owner, false); err != nil {
			return err
		}
	}
	return give(dir, owner, true)
}

// give gives a path to its owner. Who may read a file may enter its directory.
func give(path string, owner volume.Owner, dir bool) error {
	user, group := -1, -1 // As it is.
	if owner.User != nil {
		user = *owner.User
	}
	if owner.Group != nil {
		group = *owner.Group
	}
	if err := os.Chown(path, user, group); err != nil {
		return err
	}
	mode := modeOf(owner)
	if dir {
		mode = mode&0o444 | mode&0o444>>2
	}
	return os.Chmod(path, mode)
}

// modeOf is a file's mode. Where the pod names nobody, everyone who sees the file may read it: the volume is mounted in its pod alone.
func modeOf(owner volume.Owner) fs.FileMode {
	switch {
	case owner.Mode != nil:
		return *owner.Mode
	case owner.User == nil && owner.Group == nil:
		return 0o444
	}
	return 0o440
}

// swap puts the generation in force.
func (d Dir) swap(generation string) error {
	aside := filepath.Join(d.Data(), Current+".new")
	if err := os.Symlink(generation, aside); err != nil {
		return err
	}
	return os.Rename(aside, filepath.Join(d.Data(), Current))
}

// link makes each file of the set reachable by its name, and no other.
func (d Dir) link(set Set) error {
	for name := range set {
		err := os.Symlink(filepath.Join(Current, name), filepath.Join(d.Data(), name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return d.remove(func(name string) bool {
		_, wanted := set[name]
		return !wanted && !strings.HasPrefix(name, "..")
	})
}

// prune removes what is neither in force nor a file's name: older generations, and what a crash left.
func (d Dir) prune(inForce string) error {
	keep := []string{Current, inForce}
	return d.remove(func(name string) bool { return strings.HasPrefix(name, "..") && !slices.Contains(keep, name) })
}

func (d Dir) remove(unwanted func(name string) bool) error {
	entries, err := os.ReadDir(d.Data())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !unwanted(e.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(d.Data(), e.Name())); err != nil {
			return err
		}
	}
	return nil
}
