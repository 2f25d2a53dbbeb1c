package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/mayfly-csi/mayfly/signer/ca"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// The files of a CA directory, named as in a Kubernetes TLS Secret.
const (
	CertificateFile = "tls.crt"
	KeyFile         = "tls.key"
)

// lifetime is the lifetime of a CA that Open makes.
const lifetime = 10 * 365 * 24 * time.Hour

// Open makes a signer with the CA in dir: tls.crt and tls.key, both PEM. If neither file exists, it makes a CA and
// writes it there; one without the other is an error, so that no CA is replaced by accident.
func Open(dir string) (*Signer, error) {
	missing, err := missing(filepath.Join(dir, CertificateFile), filepath.Join(dir, KeyFile))
	if err != nil {
		return nil, fmt.Errorf("open the local CA: %w", err)
	}
	if missing {
		if err := create(dir); err != nil {
			return nil, fmt.Errorf("make a local CA: %w", err)
		}
	}
	s, err := load(dir)
	if err != nil {
		return nil, fmt.Errorf("open the local CA in %s: %w", dir, err)
	}
	return s, nil
}

// missing reports whether none of the files exists. It is an error if only some do.
func missing(files ...string) (bool, error) {
	var there, absent []string
	for _, file := range files {
		switch _, err := os.Stat(file); {
		case err == nil:
			there = append(there, file)
		case errors.Is(err, fs.ErrNotExist):
			absent = append(absent, file)
		default:
			return false, err
		}
	}
	if len(there) > 0 && len(absent) > 0 {
		return false, fmt.Errorf("there is %s, but no %s", there[0], absent[0])
	}
	return len(there) == 0, nil
}

// load reads the CA in dir.
func load(dir string) (*Signer, error) {
	certificate, err := fs.ReadFile(os.DirFS(dir), CertificateFile)
	if err != nil {
		return nil, err
	}
	key, err := fs.ReadFile(os.DirFS(dir), KeyFile)
	if err != nil {
		return nil, err
	}
	own, err := ca.Parse(certificate, key, certificate) // Its certificate is its root, even if another CA signed it.
	if err != nil {
		return nil, err
	}
	return &Signer{ca: own}, own.ValidAt(time.Now())
}

// create makes a CA in dir.
func create(dir string) error {
	now := time.Now()
	own, err := ca.New("Mayfly local CA", now.Add(-backdate), now.Add(lifetime))
	if err != nil {
		return err
	}
	key, err := own.KeyPEM()
	if err != nil {
		return err
	}
	return write(dir, chain.Encode(own.Certificate), key)
}

// write makes dir with the files atomically.
func write(dir string, certificate, key []byte) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o750); err != nil {
		return err
	}
	aside, err := os.MkdirTemp(filepath.Dir(dir), ".ca-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(aside)
	if err := os.WriteFile(filepath.Join(aside, KeyFile), key, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(aside, CertificateFile), certificate, 0o600); err != nil {
		return err
	}
	return os.Rename(aside, dir) // It replaces an empty directory (rename(2)).
}
