package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// A pki is the cluster's certificate authority and what it signs, in a directory.
type pki struct{ dir string }

// newPKI makes the authority.
func newPKI(dir string) (pki, error) {
	p := pki{dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return p, err
	}
	crt, key, err := NewCA()
	if err != nil {
		return p, fmt.Errorf("make a CA: %w", err)
	}
	return p, p.write("ca", crt, key)
}

func (p pki) crt(name string) string { return filepath.Join(p.dir, name+".crt") }
func (p pki) key(name string) string { return filepath.Join(p.dir, name+".key") }

func (p pki) write(name string, crt, key []byte) error {
	if err := os.WriteFile(p.key(name), key, 0o600); err != nil {
		return err
	}
	return os.WriteFile(p.crt(name), crt, 0o600)
}

// server makes a certificate to serve with.
func (p pki) server(name string, names []string, addresses ...net.IP) error {
	crt, key, err := p.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: names, IPAddresses: addresses,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return fmt.Errorf("make the certificate of %s: %w", name, err)
	}
	return p.write(name, crt, key)
}

// client is a certificate, and its key, for a user.
func (p pki) client(name string, groups ...string) (crt, key []byte, err error) {
	crt, key, err = p.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: name, Organization: groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("make user %s: %w", name, err)
	}
	return crt, key, nil
}

// user makes a user, and returns a kubeconfig for it, with the API server's URL.
func (p pki) user(url, name string, groups ...string) ([]byte, error) {
	crt, key, err := p.client(name, groups...)
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(p.crt("ca"))
	if err != nil {
		return nil, err
	}
	return clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"mayfly": {Server: url, CertificateAuthorityData: ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {ClientCertificateData: crt, ClientKeyData: key}},
		Contexts:       map[string]*clientcmdapi.Context{"mayfly": {Cluster: "mayfly", AuthInfo: name}},
		CurrentContext: "mayfly",
	})
}

func (p pki) sign(template *x509.Certificate) (crt, key []byte, err error) {
	ca, caKey, err := p.authority()
	if err != nil {
		return nil, nil, fmt.Errorf("read the CA: %w", err)
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	return newPair(template, ca, caKey)
}

func (p pki) authority() (*x509.Certificate, crypto.Signer, error) {
	crt, err := os.ReadFile(p.crt("ca"))
	if err != nil {
		return nil, nil, err
	}
	key, err := os.ReadFile(p.key("ca"))
	if err != nil {
		return nil, nil, err
	}
	crtBlock, _ := pem.Decode(crt)
	ca, err := x509.ParseCertificate(crtBlock.Bytes)
	if err != nil {
		return nil, nil, err
	}
	keyBlock, _ := pem.Decode(key)
	signer, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, nil, err
	}
	return ca, signer.(crypto.Signer), nil //nolint:errcheck,forcetypeassert // newPair wrote it.
}

// NewCA makes a certificate authority: certificate and key in PEM.
func NewCA() (crt, key []byte, err error) {
	return newPair(&x509.Certificate{
		Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
}

// newPair is a certificate and its key in PEM, valid for 30 days; it signs itself if there is no parent.
func newPair(template, parent *x509.Certificate, signer crypto.Signer) (crt, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if parent == nil {
		parent, signer = template, private
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().AddDate(0, 0, 30)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, private.Public(), signer)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	crt = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return crt, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}
