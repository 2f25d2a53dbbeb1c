package docs_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/trust"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/ca"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// certificate makes a certificate whose only difference from others is a serial number, with that many bytes more.
func certificate(t *testing.T, serial int64, key any, more int) chain.Certificate {
	t.Helper()
	own := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
		ExtraExtensions: []pkix.Extension{{Id: []int{1, 2, 3}, Value: make([]byte, more)}},
	}
	if key == nil {
		key = own.Public()
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key, own)
	if err != nil {
		t.Fatal(err)
	}
	c, err := chain.FromDER(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// filled adds a certificate, so that all have at most that many bytes of PEM, or with one byte more of the certificate more.
func filled(t *testing.T, all chain.Bundle, most, over int) chain.Bundle {
	t.Helper()
	with := func(more int) chain.Bundle {
		return append(slices.Clone(all), certificate(t, int64(len(all)+1), nil, more))
	}
	first := sort.Search(60*kib, func(more int) bool { return with(more).Size() > most })
	return with(first - 1 + over)
}

func certificateBounds() []bound {
	parse := func(text []byte) error {
		_, err := chain.Parse(text)
		return err
	}
	return []bound{
		{"A text with certificates in PEM", "1 MiB", func(t *testing.T, over int) error {
			text := chain.Bundle{certificate(t, 1, nil, 0)}.Encode()
			return parse(append(text, bytes.Repeat([]byte("\n"), kib*kib+over-len(text))...))
		}},
		{"Certificates of a text", "1,024", func(t *testing.T, over int) error {
			return parse(slices.Repeat(chain.Bundle{certificate(t, 1, nil, 0)}, 1024+over).Encode())
		}},
		{"A certificate", "64 KiB of DER", func(t *testing.T, over int) error {
			const begin = 60 * kib
			size := len(certificate(t, 1, nil, begin).Raw())
			return parse(chain.Bundle{certificate(t, 1, nil, begin+64*kib-size+over)}.Encode())
		}},
		{"The RSA key of a certificate", "8,192 bits", func(t *testing.T, over int) error {
			n := new(big.Int).Lsh(big.NewInt(1), uint(8191+over)) //nolint:gosec // It is small.
			return parse(chain.Bundle{certificate(t, 1, &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: 65537}, 0)}.Encode())
		}},
		{"A certificate with the others that an issuer sends", "256 KiB of PEM", func(t *testing.T, over int) error {
			var sent chain.Bundle
			for i := range 4 {
				sent = append(sent, certificate(t, int64(i+1), nil, 46*kib))
			}
			sent = filled(t, sent, chain.MaxChain, over)
			public, _ := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey)
			_, err := chain.New(sent, nil, public, time.Now())
			return err
		}},
		{"The CA certificates of a volume, of all its sources", "1 MiB of PEM", func(t *testing.T, over int) error {
			var all chain.Bundle
			for i := range 12 {
				all = append(all, certificate(t, int64(i+1), nil, 60*kib))
			}
			all = filled(t, all, trust.MaxSize, over)
			source := volume.Source{Kind: volume.BundleSource, Name: "a"}
			m := trust.Memory{}.Update([]volume.Source{source}, func(volume.Source) trust.Answer {
				return trust.Answer{Certificates: all}
			}, nil, time.Now())
			if _, problem, missing := m.Missing([]volume.Source{source}); missing {
				return errors.New(problem)
			}
			return nil
		}},
		{"The key of a CA", "16 KiB of PEM", func(t *testing.T, over int) error {
			own, err := ca.New("ca", time.Now(), time.Now().Add(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			key, err := own.KeyPEM()
			if err != nil {
				t.Fatal(err)
			}
			key = append(key, bytes.Repeat([]byte("\n"), 16*kib+over-len(key))...)
			_, err = ca.Parse(chain.Encode(own.Certificate), key, nil)
			return err
		}},
	}
}
