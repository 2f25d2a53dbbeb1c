package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// issue makes a pair as a volume's attributes say, writes it to dir, and returns when the next one is due.
func issue(dir string, attributes map[string]string) (next time.Time, err error) {
	lifetime := 2160 * time.Hour
	if d := attributes[name+"/duration"]; d != "" {
		if lifetime, err = time.ParseDuration(d); err != nil {
			return time.Time{}, fmt.Errorf("parse duration: %w", err)
		}
	}
	ca, err := tls.LoadX509KeyPair("/ca/tls.crt", "/ca/tls.key")
	if err != nil {
		return time.Time{}, fmt.Errorf("read the CA: %w", err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return time.Time{}, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return time.Time{}, err
	}
	now := time.Now()
	leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Organization: []string{"csi-driver"}},
		NotBefore: now, NotAfter: now.Add(lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		DNSNames: strings.Split(os.Expand(attributes[name+"/dns-names"], variables(attributes)), ","),
	}, ca.Leaf, key.Public(), ca.PrivateKey)
	if err != nil {
		return time.Time{}, fmt.Errorf("sign: %w", err)
	}
	return now.Add(lifetime * 2 / 3), write(dir, map[string][]byte{
		"ca.crt":  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificate[0]}),
		"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf}),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
	})
}

// variables returns the values of the variables in attributes.
func variables(attributes map[string]string) func(string) string {
	return func(variable string) string {
		return attributes[map[string]string{
			"POD_NAME": "csi.storage.k8s.io/pod.name", "POD_NAMESPACE": "csi.storage.k8s.io/pod.namespace",
		}[variable]]
	}
}

// write replaces all files at once, as csi-lib does (storage/filesystem.go; kubernetes pkg/volume/util/atomic_writer.go): they lie in a new directory,
// to which the link ..data leads then.
func write(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o550); err != nil {
		return err
	}
	before, _ := os.Readlink(filepath.Join(dir, "..data"))
	stamped, err := os.MkdirTemp(dir, time.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return err
	}
	if err := os.Chmod(stamped, 0o755); err != nil { //nolint:gosec // The volume's directory bounds who reads it.
		return err
	}
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(stamped, file), text, 0o440); err != nil { //nolint:gosec // As csi-lib.
			return err
		}
	}
	temporary := filepath.Join(dir, "..data_tmp")
	if err := os.Symlink(filepath.Base(stamped), temporary); err != nil {
		return err
	}
	if err := os.Rename(temporary, filepath.Join(dir, "..data")); err != nil {
		return err
	}
	for file := range files {
		if err := os.Symlink(filepath.Join("..data", file), filepath.Join(dir, file)); err != nil && !os.IsExist(err) {
			return err
		}
	}
	if before == "" {
		return nil
	}
	return os.RemoveAll(filepath.Join(dir, before))
}
