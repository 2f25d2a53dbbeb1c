package files

import (
	"bytes"
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

// A Set holds all files of the pod, by name. Names have no slash and do not begin with a dot.
type Set map[string][]byte

// Current is the link to the generation in force. A reader that opens it once reads a matching pair.
const Current = "..data"

// A Generation holds all that is put in force at once.
type Generation struct {
	Attempt string // The id of the attempt of the pair; empty without a pair.
	Pair    []byte // The PKCS#8 key, then the chain, leaf first, for any layout; nil: there is none.
	Trust   []byte // The record of the CA certificates; nil without a pair.
	Files   Set
	Owner   volume.Owner // Who may read the files.
}

// Install replaces all files of the pod at once, as the kubelet does for Secrets (kubernetes
// pkg/volume/util/atomic_writer.go), and the pair that is kept beside them. The rename of the link [Current] is the
// one commit point: if Install fails, the files in force have not changed; if it is interrupted, [Dir.InForce]
// returns which are. The old generation is removed at once, so that a program that watches one of its files is
// notified.
func (d Dir) Install(g Generation) error {
	err := os.Mkdir(d.Data(), 0o700)
	first := err == nil // Nothing is there to prune.
	if first || errors.Is(err, fs.ErrExist) {
		err = d.install(g, first)
	}
	if err != nil {
		return fmt.Errorf("install the files: %w", err)
	}
	if first {
		return nil
	}
	_ = d.prune(func(name string) bool { // The next one removes what this one can't.
		_, named := g.Files[name]
		return !named
	})
	return nil
}

// install writes a generation and puts it in force.
func (d Dir) install(g Generation, first bool) error {
	if !first {
		if err := d.prune(func(string) bool { return false }); err != nil {
			return err
		}
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
	d.linkPair(next)
	return nil
}

// nextGeneration returns the name of a new generation: its pair's attempt, and how many it had before.
func nextGeneration(current, attempt string) string {
	before, number, _ := strings.Cut(current, ".")
	n := 0
	if before == attempt {
		n, _ = strconv.Atoi(number) // 0 for none.
		n++
	}
	return attempt + "." + strconv.Itoa(n)
}

// InForce returns the pod's pair and its attempt; the error is [fs.ErrNotExist] if the pod has none.
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

// generation writes a generation that is not in force yet, and makes the links by the names of its files: until the
// swap, a new link is dangling.
func (d Dir) generation(name string, g Generation) error {
	set := filepath.Join(d.Data(), ".."+name)
	if err := writeSet(set, g.Files, g.Owner); err != nil {
		return err
	}
	if err := d.keepPair(name, set, g); err != nil {
		return err
	}
	if g.Trust != nil {
		if err := os.WriteFile(d.path(trustFile+name), g.Trust, 0o600); err != nil {
			return err
		}
	}
	for name := range g.Files {
		err := os.Symlink(filepath.Join(Current, name), filepath.Join(d.Data(), name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return setOwner(d.Data(), g.Owner, true)
}

// keepPair keeps the pair beside the pod's files. If one of them is the same, it is that file: each file takes a page.
func (d Dir) keepPair(name, set string, g Generation) error {
	if g.Pair == nil {
		return nil
	}
	for file, content := range g.Files {
		if bytes.Equal(content, g.Pair) {
			return os.Link(filepath.Join(set, file), d.path(pairFile+name))
		}
	}
	return os.WriteFile(d.path(pairFile+name), g.Pair, 0o600)
}

// writeSet writes files into a new directory.
func writeSet(dir string, set Set, owner volume.Owner) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for name, content := range set {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
		if err := setOwner(path, owner, false); err != nil {
			return err
		}
	}
	return setOwner(dir, owner, true)
}

// setOwner sets owner and mode of a path. Who may read a file may enter its directory.
func setOwner(path string, owner volume.Owner, dir bool) error {
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

// modeOf returns a file's mode. Without an owner everyone who can reach the file may read it: the volume is mounted in
// its pod only.
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

// prune removes what is not in force: other generations with their pairs, temporary files that a crash left, and links
// that are stale.
func (d Dir) prune(stale func(name string) bool) error {
	current, err := d.current()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(
		remove(d.Data(), func(name string) bool {
			if strings.HasPrefix(name, "..") {
				return name != Current && name != ".."+current
			}
			return stale(name)
		}),
		remove(string(d), func(name string) bool {
			kind, generation, _ := strings.Cut(name, ".")
			return (kind+"." == pairFile || kind+"." == trustFile) && generation != current && name != earlierPairFile
		}),
	)
}

// remove removes the entries of a directory that match.
func remove(dir string, match func(name string) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !match(e.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
