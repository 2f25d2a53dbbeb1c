package kubelet

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Load reads a pod's key and certificate at target, of the layouts pem and bundle, checks that they fit,
// and returns the certificate.
func Load(target string) (leaf *x509.Certificate, err error) {
	err = ReadSet(target, func(dir string) error {
		leaf, err = loadSet(dir)
		return err
	})
	return leaf, err
}

// ReadSet calls read with the directory of the files in force at target. A set that is replaced while it is read is gone;
// then it is called with the next.
func ReadSet(target string, read func(dir string) error) error {
	current := filepath.Join(target, "..data")
	for {
		before, err := os.Readlink(current)
		if err != nil {
			return err
		}
		err = read(filepath.Join(target, before))
		if after, _ := os.Readlink(current); !errors.Is(err, fs.ErrNotExist) || after == before {
			return err
		}
	}
}

// loadSet reads and checks the set in a directory.
func loadSet(dir string) (*x509.Certificate, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	crt, err1 := root.ReadFile("tls.crt")
	key, err2 := root.ReadFile("tls.key")
	bundle, err3 := root.ReadFile("credential-bundle.pem")
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	single, err := tls.X509KeyPair(bundle, bundle)
	if err != nil {
		return nil, fmt.Errorf("the bundle: %w", err)
	}
	two, err := tls.X509KeyPair(crt, key)
	if err != nil {
		return nil, fmt.Errorf("the two files: %w", err)
	}
	if !single.Leaf.Equal(two.Leaf) {
		return nil, errors.New("bundle and files differ")
	}
	return single.Leaf, nil
}
