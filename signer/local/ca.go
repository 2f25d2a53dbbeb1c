package local

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// The files of a CA directory, named as in a Kubernetes TLS Secret.
const (
	CertificateFile = "tls.crt"
	KeyFile         = "tls.key"
)

// lifetime of a CA that is made here.
const lifetime = 10 * 365 * 24 * time.Hour

// Open is a signer with the CA in dir: tls.crt and tls.key, both PEM. If neither file is there, a CA is made and kept there;
// one without the other is an error, so that no CA is replaced by accident.
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

// missing reports whether all files are.
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

func load(dir string) (*Signer, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, CertificateFile), filepath.Join(dir, KeyFile))
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T can't sign", pair.PrivateKey)
	}
	switch ca := pair.Leaf; {
	case !ca.IsCA:
		return nil, fmt.Errorf("%s is not a CA certificate", CertificateFile)
	case !ca.NotAfter.After(time.Now()):
		return nil, fmt.Errorf("%s expired at %s", CertificateFile, ca.NotAfter.UTC().Format(time.RFC3339))
	}
	return &Signer{ca: pair.Leaf, chain: certificatePEM(pair.Leaf.Raw), key: key}, nil
}

// create makes a CA in dir. The directory appears as a whole: a crash leaves no half.
func create(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Mayfly local CA"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(lifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return write(dir, certificatePEM(certificate), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

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
	return os.Rename(aside, dir) // An empty directory that is there gives way (rename(2)).
}
