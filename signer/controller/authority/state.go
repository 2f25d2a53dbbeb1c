package authority

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/mayfly-csi/mayfly/signer/ca"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// The keys of the own CA's Secret, besides those of a TLS Secret.
const (
	rootsKey           = "ca.crt"
	nextCertificateKey = "next.crt"
	nextPrivateKeyKey  = "next.key"
)

// A State is the controller's own CA. The zero State is that there is none.
type State struct {
	Signing *ca.CA // nil: none yet.
	Next    *ca.CA // Published already, and signs later; nil: none yet.
	// Roots are all that are published: of Signing, of Next, and those that signed before and have not ended.
	Roots []*x509.Certificate
}

// ParseState reads what [State.Write] wrote. A Secret that has something else is an error.
func ParseState(data map[string][]byte) (s State, err error) {
	if s.Signing, err = parseOwn(data, corev1.TLSCertKey, corev1.TLSPrivateKeyKey); err != nil {
		return State{}, err
	}
	if s.Roots, err = ca.Decode(data[rootsKey]); err != nil {
		return State{}, fmt.Errorf("%s: %w", rootsKey, err)
	}
	if len(data[nextCertificateKey]) > 0 || len(data[nextPrivateKeyKey]) > 0 {
		if s.Next, err = parseOwn(data, nextCertificateKey, nextPrivateKeyKey); err != nil {
			return State{}, err
		}
	}
	for _, c := range []*ca.CA{s.Signing, s.Next} {
		if c != nil && !ca.Has(s.Roots, c.Certificate) {
			return State{}, fmt.Errorf("%s does not have %s", rootsKey, c)
		}
	}
	return s, nil
}

func parseOwn(data map[string][]byte, certificate, key string) (*ca.CA, error) {
	c, err := ca.Parse(data[certificate], data[key], data[certificate])
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s and %s: %w", certificate, key, err)
	case len(c.Roots) > 1:
		return nil, errors.New(certificate + " has several certificates")
	}
	return &c, nil
}

// Write returns a Secret's data with the state in it. Keys that are not of a state stay.
func (s State) Write(data map[string][]byte) (map[string][]byte, error) {
	data = maps.Clone(data)
	if data == nil {
		data = map[string][]byte{}
	}
	delete(data, nextCertificateKey)
	delete(data, nextPrivateKeyKey)
	data[rootsKey] = chain.Encode(s.Roots...)
	err := writeOwn(data, s.Signing, corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
	return data, errors.Join(err, writeOwn(data, s.Next, nextCertificateKey, nextPrivateKeyKey))
}

func writeOwn(data map[string][]byte, c *ca.CA, certificate, key string) (err error) {
	if c != nil {
		data[certificate] = chain.Encode(c.Certificate)
		data[key], err = c.KeyPEM()
	}
	return err
}

// unite returns all certificates in order, each once.
func unite(lists ...[]*x509.Certificate) (all []*x509.Certificate) {
	for _, one := range slices.Concat(lists...) {
		if !ca.Has(all, one) {
			all = append(all, one)
		}
	}
	return all
}
