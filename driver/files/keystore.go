package files

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// encoder returns the encoder of PKCS#12 stores.
func encoder(a volume.Algorithms) *pkcs12.Encoder {
	switch a {
	case volume.LegacyDES:
		return pkcs12.LegacyDES
	case volume.LegacyRC2:
		return pkcs12.LegacyRC2
	}
	return pkcs12.Modern2023
}

// pkcs12 makes a PKCS#12 store with the key and its chain.
func (c Content) pkcs12(k volume.Keystore) ([]byte, error) {
	all := derOnly(c.Chain)
	store, err := encoder(k.Algorithms).Encode(c.Private, all[0], all[1:], c.Password)
	if err != nil || k.Alias == "" {
		return store, err
	}
	return setAlias(store, k.Alias, c.Password)
}

// pkcs12Trust makes a PKCS#12 store with the CA certificates, as Java reads it.
func (c Content) pkcs12Trust(k volume.Keystore) ([]byte, error) {
	// Java keeps one entry a name, and an old root and its successor have one subject.
	entries := make([]pkcs12.TrustStoreEntry, len(c.CA))
	for i, ca := range derOnly(c.CA) {
		entries[i] = pkcs12.TrustStoreEntry{Cert: ca, FriendlyName: trustAlias(i)}
	}
	return encoder(k.Algorithms).EncodeTrustStoreEntries(entries, c.Password)
}

// jks makes a JKS store with the key and its chain.
func (c Content) jks(k volume.Keystore) ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(c.Private)
	if err != nil {
		return nil, err
	}
	entry := keystore.PrivateKeyEntry{CreationTime: time.Now(), PrivateKey: key}
	for _, certificate := range c.Chain {
		entry.CertificateChain = append(entry.CertificateChain, jksCertificate(certificate))
	}
	store := keystore.New()
	alias := cmp.Or(k.Alias, volume.StandardAlias)
	if err := store.SetPrivateKeyEntry(alias, entry, []byte(c.Password)); err != nil {
		return nil, err
	}
	return encodeJKS(store, c.Password)
}

// jksTrust makes a JKS store with the CA certificates.
func (c Content) jksTrust() ([]byte, error) {
	store := keystore.New(keystore.WithOrderedAliases())
	for i, ca := range c.CA {
		entry := keystore.TrustedCertificateEntry{CreationTime: time.Now(), Certificate: jksCertificate(ca)}
		if err := store.SetTrustedCertificateEntry(trustAlias(i), entry); err != nil {
			return nil, err
		}
	}
	return encodeJKS(store, c.Password)
}

// trustAlias returns the name of a CA certificate in a truststore.
func trustAlias(i int) string { return fmt.Sprintf("ca-%d", i+1) }

// jksCertificate returns a certificate in the library's form.
func jksCertificate(c chain.Certificate) keystore.Certificate {
	return keystore.Certificate{Type: "X509", Content: c.Raw()}
}

// encodeJKS encodes a JKS store.
func encodeJKS(store keystore.KeyStore, password string) ([]byte, error) {
	var out bytes.Buffer
	err := store.Store(&out, []byte(password))
	return out.Bytes(), err
}

// derOnly returns certificates of which only the DER is set: the library reads nothing else.
func derOnly(all chain.Bundle) (certificates []*x509.Certificate) {
	for _, c := range all {
		certificates = append(certificates, &x509.Certificate{Raw: c.Raw()})
	}
	return certificates
}
