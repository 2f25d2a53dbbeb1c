// Package files is what lies in a volume: the files that the pod reads, swapped as a whole, and beside them,
// out of the pod's sight, what the driver must know after a restart.
//
//	<state directory>/<volume id>/   the volume's tmpfs, 0700
//	  record.json                    what was asked, what is under way
//	  pending.key                    the key of the attempt under way
//	  pair.<generation>              the key and chain of a generation
//	  keystore.password              the password of its keystores, from its Secret
//	  trust.<generation>             what is known of its CA certificates
//	  data/                          what the pod sees: bind-mounted read-only on its target
//	    tls.crt -> ..data/tls.crt
//	    ..data -> ..<generation>     what is in force: the one truth
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

// Data is the directory that the pod sees.
func (d Dir) Data() string { return d.path("data") }

func (d Dir) path(name string) string { return filepath.Join(string(d), name) }

// RecordFile is the name of the record.
const RecordFile = "record.json"

// The other files of the driver.
const (
	pendingFile = "pending.key"
	pairFile    = "pair." // And the generation.

	passwordFile = "keystore.password"
	trustFile    = "trust." // And the generation.
)

// WriteRecord replaces the record.
func (d Dir) WriteRecord(text []byte) error { return d.write(RecordFile, text) }

// Record reads the record; the error is [fs.ErrNotExist] if there is none.
func (d Dir) Record() ([]byte, error) { return os.ReadFile(d.path(RecordFile)) }

// WritePendingKey keeps the key of the attempt under way. It must lie here before its request leaves the node.
func (d Dir) WritePendingKey(key []byte) error { return d.write(pendingFile, key) }

// PendingKey is the key of the attempt under way; the error is [fs.ErrNotExist] if there is none.
func (d Dir) PendingKey() ([]byte, error) { return os.ReadFile(d.path(pendingFile)) }

// RemovePendingKey forgets the key of an attempt that is over.
func (d Dir) RemovePendingKey() error {
	if err := os.Remove(d.path(pendingFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the pending key: %w", err)
	}
	return nil
}

// Recover removes what an interrupted installation left, and names what an older driver wrote after the generation in
// force. It does nothing where nothing was installed.
func (d Dir) Recover() error {
	current, err := d.current()
	if err == nil {
		err = cmp.Or(rename(d.path(pairFile+"pem"), d.path(pairFile+current)), rename(d.path(trustFile+"json"), d.path(trustFile+current)))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("name the pair: %w", err)
	}
	if err := d.prune(func(string) bool { return false }); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove what an interrupted installation left: %w", err)
	}
	return nil
}

// WritePassword keeps the password that a Secret has for the volume's keystores, for the renewals: the Secret comes with a publish call alone.
func (d Dir) WritePassword(password string) error { return d.write(passwordFile, []byte(password)) }

// Password is what WritePassword kept; empty if nothing was.
func (d Dir) Password() (string, error) {
	text, err := os.ReadFile(d.path(passwordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(text), err
}

// WriteTrust keeps what is known of the volume's CA certificates, beside the generation in force.
func (d Dir) WriteTrust(text []byte) error {
	current, err := d.current()
	if err != nil {
		return fmt.Errorf("keep what is known of the CA certificates: %w", err)
	}
	return d.write(trustFile+current, text)
}

// Trust returns what is kept beside the generation in force; the error is [fs.ErrNotExist] if nothing is.
func (d Dir) Trust() ([]byte, error) {
	current, err := d.current()
	if err != nil {
		return nil, err
	}
	return os.ReadFile(d.path(trustFile + current))
}

// rename renames a file if it is there.
func rename(from, to string) error {
	if err := os.Rename(from, to); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Shown is a file that the pod has.
func (d Dir) Shown(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(d.Data(), Current, name)) // #nosec G304 -- A volume's file names are plain.
}

// write replaces a file of the driver: it is there as a whole or not at all. What a crash leaves aside, the next write takes over.
// A tmpfs has nothing to sync.
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

// Wipe empties the volume: a mount namespace that still holds the tmpfs holds no secret then. The record goes last,
// so that an interrupted wipe is known for what it is.
func (d Dir) Wipe() error {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return fmt.Errorf("wipe the volume: %w", err)
	}
	for _, e := range entries {
		if e.Name() == RecordFile {
			continue
		}
		if err := os.RemoveAll(d.path(e.Name())); err != nil {
			return fmt.Errorf("wipe the volume: %w", err)
		}
	}
	if err := os.RemoveAll(d.path(RecordFile)); err != nil {
		return fmt.Errorf("wipe the volume: %w", err)
	}
	return nil
}
