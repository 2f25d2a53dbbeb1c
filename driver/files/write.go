package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mayfly-csi/mayfly/driver/volume"
)

// A Set is all files that the pod sees, by name. Names have no slash and do not begin with a dot.
type Set map[string][]byte

// Current is the link to the generation of files that is in force: what a reader opens once to read a matching pair.
const Current = "..data"

// A Generation is all that is put in force at once.
type Generation struct {
	Attempt string // The id of the attempt that brought the pair; empty for a volume without one.
	Pair    []byte // The PKCS#8 key, then the chain, leaf first, whatever the pod's layouts are; nil for a volume without one.
	Trust   []byte // What is known of the CA certificates; nil for a volume without a pair.
	Files   Set
	Owner   volume.Owner // Who may read the files.
}

// Install replaces all files of the pod at once, as the kubelet does for Secrets (kubernetes
// pkg/volume/util/atomic_writer.go), and the pair that is kept beside them. The rename of the link [Current] is the one
// commit point: if Install fails, the files in force are those of before; if it is interrupted, [Dir.InForce] says which
// they are. What was in force before goes at once: a program that watches one of its files hears of it.
func (d Dir) Install(g Generation) error {
	if err := d.install(g); err != nil {
		return fmt.Errorf("install the files: %w", err)
	}
	_ = d.prune(func(name string) bool { // What can't be removed now goes with the next one.
		_, named := g.Files[name]
		return !named
	})
	return nil
}

func (d Dir) install(g Generation) error {
	if err := os.Mkdir(d.Data(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := d.prune(func(string) bool { return false }); err != nil {
		return err
	}
	current, err := d.current()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	next := nextGeneration(current, g.Attempt)
	err = d.generation(next, g)
	if err == nil {
		err = d.swap(next)
	}
	if err != nil {
		return errors.Join(err, d.prune(func(string) bool { return false }))
	}
	return nil
}

// nextGeneration names a generation: the attempt that brought its pair, and how many generations of it were before.
func nextGeneration(current, attempt string) string {
	before, number, _ := strings.Cut(current, ".")
	n := 0
	if before == attempt {
		n, _ = strconv.Atoi(number) // 0 for none.
		n++
	}
	return attempt + "." + strconv.Itoa(n)
}

// InForce returns the attempt whose pair the pod has, and the pair; the error is [fs.ErrNotExist] if it has none.
func (d Dir) InForce() (attempt string, pair []byte, err error) {
	current, err := d.current()
	if err != nil {
		return "", nil, err
	}
	attempt, _, _ = strings.Cut(current, ".")
	pair, err = os.ReadFile(d.path(pairFile + current))
	return attempt, pair, err
}

// InstalledAt returns when the pod's files were put in force.
func (d Dir) InstalledAt() (time.Time, error) {
	info, err := os.Lstat(filepath.Join(d.Data(), Current))
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// current returns the generation in force; the error is [fs.ErrNotExist] if there is none.
func (d Dir) current() (string, error) {
	to, err := os.Readlink(filepath.Join(d.Data(), Current))
	return strings.TrimPrefix(to, ".."), err
}

// generation writes the generation aside, and links to it by the names of its files: a link that leads nowhere yet is
// as good as none.
func (d Dir) generation(name string, g Generation) error {
	for prefix, text := range map[string][]byte{pairFile: g.Pair, trustFile: g.Trust} {
		if text == nil {
			continue
		}
		if err := os.WriteFile(d.path(prefix+name), text, 0o600); err != nil {
			return err
		}
	}
	if err := fill(filepath.Join(d.Data(), ".."+name), g.Files, g.Owner); err != nil {
		return err
	}
	for name := range g.Files {
		err := os.Symlink(filepath.Join(Current, name), filepath.Join(d.Data(), name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return give(d.Data(), g.Owner, true)
}

func fill(dir string, set Set, owner volume.Owner) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
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
	if err := os.Symlink(".."+generation, aside); err != nil {
		return err
	}
	return os.Rename(aside, filepath.Join(d.Data(), Current))
}

// prune removes what is not in force: other generations with their pairs, what a crash left aside, and links by names that
// are no longer those of files.
func (d Dir) prune(unnamed func(name string) bool) error {
	current, err := d.current()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(
		remove(d.Data(), func(name string) bool {
			if strings.HasPrefix(name, "..") {
				return name != Current && name != ".."+current
			}
			return unnamed(name)
		}),
		remove(string(d), func(name string) bool {
			kind, generation, _ := strings.Cut(name, ".")
			return (kind+"." == pairFile || kind+"." == trustFile) && generation != current
		}),
	)
}

func remove(dir string, unwanted func(name string) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !unwanted(e.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
