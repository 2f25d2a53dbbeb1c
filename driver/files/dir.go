// Package files reads and writes the content of a volume: the files that the pod reads, which are replaced all at
// once, and next to them, where the pod can't see it, what the driver needs after a restart.
//
//	<state directory>/<volume id>/   the volume's tmpfs, 0700
//	  record.json                    what the pod asked for, the attempt under way
//	  pending.key                    the key of the attempt under way
//	  pair.<generation>              the key and chain of a generation: a file of the pod, if one is the same
//	  keystore.password              the password of its keystores, from its Secret
//	  trust.<generation>             the record of its CA certificates
//	  data/                          bind-mounted read-only on the pod's target
//	    tls.crt -> ..data/tls.crt
//	    ..data -> ..<generation>     the generation in force
//	    ..<generation>/tls.crt
package files

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A Dir is the root of one volume's tmpfs.
type Dir string

// Data returns the directory that is mounted into the pod.
func (d Dir) Data() string { return d.path("data") }

// path returns the path of a file of the driver.
func (d Dir) path(name string) string { return filepath.Join(string(d), name) }

// RecordFile is the name of the record.
const RecordFile = "record.json"

// The names of the driver's other files.
const (
	pendingFile = "pending.key"
	pairFile    = "pair." // And the generation.

	earlierPairFile  = "pair.pem" // Of drivers before generations had files of their own.
	earlierTrustFile = "trust.json"

	passwordFile = "keystore.password"
	trustFile    = "trust." // And the generation.
)

// WriteRecord replaces the record.
func (d Dir) WriteRecord(text []byte) error { return d.write(RecordFile, text) }

// Record reads the record; the error is [fs.ErrNotExist] if there is none.
func (d Dir) Record() ([]byte, error) { return os.ReadFile(d.path(RecordFile)) }

// WritePendingKey stores the key of the attempt under way. Call it before the request is sent.
func (d Dir) WritePendingKey(key []byte) error { return d.write(pendingFile, key) }

// PendingKey reads the key of the attempt under way; the error is [fs.ErrNotExist] if there is none.
func (d Dir) PendingKey() ([]byte, error) { return os.ReadFile(d.path(pendingFile)) }

// RemovePendingKey removes the key of an attempt that has ended.
func (d Dir) RemovePendingKey() error {
	if err := os.Remove(d.path(pendingFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the pending key: %w", err)
	}
	return nil
}

// Recover removes the remains of an interrupted installation, and renames the files of an older driver after the
// generation in force. It does nothing if nothing was installed.
func (d Dir) Recover() error {
	current, err := d.current()
	if err == nil {
		err = cmp.Or(
			rename(d.path(earlierPairFile), d.path(pairFile+current)),
			rename(d.path(earlierTrustFile), d.path(trustFile+current)),
		)
		d.linkPair(current)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("rename the pair: %w", err)
	}
	if err := d.prune(func(string) bool { return false }); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove an interrupted installation: %w", err)
	}
	return nil
}

// WritePassword stores the keystores' password from a Secret, for renewals: only publish calls bring the Secret.
func (d Dir) WritePassword(password string) error { return d.write(passwordFile, []byte(password)) }

// Password returns the stored password; empty if there is none.
func (d Dir) Password() (string, error) {
	text, err := os.ReadFile(d.path(passwordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(text), err
}

// WriteTrust stores the record of the volume's CA certificates, with the generation in force.
func (d Dir) WriteTrust(text []byte) error {
	current, err := d.current()
	if err != nil {
		return fmt.Errorf("write the record of CA certificates: %w", err)
	}
	return d.write(trustFile+current, text)
}

// Trust reads the record that WriteTrust or Install stored; the error is [fs.ErrNotExist] if there is none.
func (d Dir) Trust() ([]byte, error) {
	current, err := d.current()
	if err != nil {
		return nil, err
	}
	return os.ReadFile(d.path(trustFile + current))
}

// rename renames a file if it is there. A link is that of linkPair.
func rename(from, to string) error {
	if info, err := os.Lstat(from); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return nil
	}
	if err := os.Rename(from, to); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// linkPair links the pair of a generation under the name by which earlier drivers find it: one that takes the place of
// this driver goes on with the volume. Nothing else needs the link, so it is no error if it can't be made.
func (d Dir) linkPair(generation string) {
	if _, err := os.Lstat(d.path(pairFile + generation)); err != nil {
		return
	}
	aside := d.path(earlierPairFile + ".new")
	if os.Symlink(pairFile+generation, aside) == nil {
		_ = os.Rename(aside, d.path(earlierPairFile))
	}
}

// InstalledFile reads a file of the pod.
func (d Dir) InstalledFile(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(d.Data(), Current, name)) // #nosec G304 -- A volume's file names are plain.
}

// write replaces a file of the driver atomically. The next write replaces a temporary file that a crash left. A tmpfs
// needs no sync.
func (d Dir) write(name string, content []byte) error {
	aside := d.path(name + ".new")
	if err := os.WriteFile(aside, content, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(aside, d.path(name)); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// RemoveAll removes all files of the volume, so that a mount namespace in which the tmpfs is still mounted has no
// secrets. It removes the record last, so that an interrupted removal is continued.
func (d Dir) RemoveAll() error {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return fmt.Errorf("empty the volume: %w", err)
	}
	for _, e := range entries {
		if e.Name() == RecordFile {
			continue
		}
		if err := os.RemoveAll(d.path(e.Name())); err != nil {
			return fmt.Errorf("empty the volume: %w", err)
		}
	}
	if err := os.RemoveAll(d.path(RecordFile)); err != nil {
		return fmt.Errorf("empty the volume: %w", err)
	}
	return nil
}
