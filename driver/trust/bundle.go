// Package trust is where the CA certificates of volumes come from: it watches their sources, as many as volumes use and each of them once, and
// knows what a volume shows when they change.
//
// What it decides is pure: a [Memory] of one volume. What it watches, a [Watcher] tells.
package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
)

// MaxSize is the greatest size of a volume's CA certificates in PEM, and of each source's text. The API server takes objects of up to 1.5 MiB.
const MaxSize = 1 << 20

// Parse reads CA certificates in PEM, at least one and none twice. What stands between them is dropped; a block that is none of them, or is damaged, is an error.
func Parse(text []byte) ([]*x509.Certificate, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("is %d bytes long: more than %d", len(text), MaxSize)
	}
	var (
		found  []*x509.Certificate
		blocks int
	)
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		blocks++
		if block.Type != pemType {
			return nil, fmt.Errorf("has a PEM block of type %.64q among its certificates", block.Type)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("has a block that is no certificate, number %d: %w", blocks, err)
		}
		found = append(found, certificate)
	}
	// pem.Decode passes over a block that it can't read.
	if begun := bytes.Count(text, []byte("-----BEGIN ")); begun != blocks {
		return nil, fmt.Errorf("has %d PEM blocks of which %d can't be read", begun, begun-blocks)
	}
	if len(found) == 0 {
		return nil, errors.New("has no certificate")
	}
	return unite(found), nil
}

const pemType = "CERTIFICATE"

// Encode is certificates in PEM.
func Encode(certificates []*x509.Certificate) (text []byte) {
	for _, c := range certificates {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: c.Raw})...)
	}
	return text
}

// size is how long Encode's text is.
func size(certificates []*x509.Certificate) (n int) {
	const line = 64
	for _, c := range certificates {
		body := base64.StdEncoding.EncodedLen(len(c.Raw))
		n += len("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n") + body + (body+line-1)/line
	}
	return n
}

// unite is all certificates in order, each once.
func unite(lists ...[]*x509.Certificate) (all []*x509.Certificate) {
	seen := map[string]bool{}
	for _, list := range lists {
		for _, c := range list {
			if !seen[string(c.Raw)] {
				seen[string(c.Raw)] = true
				all = append(all, c)
			}
		}
	}
	return all
}
