package volume

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/problem"
)

// DistrustKey is the key of the profiles' ConfigMap that lists the CA certificates that no volume may have.
const DistrustKey = "distrust"

// maxFingerprints limits the list of distrusted certificates, and maxDistrust its text, in bytes.
const (
	maxFingerprints = 64
	maxDistrust     = 64 << 10
)

// A Fingerprint is the SHA-256 of a certificate in DER.
type Fingerprint [sha256.Size]byte

// FingerprintOf returns the fingerprint of a certificate in DER.
func FingerprintOf(der []byte) Fingerprint { return sha256.Sum256(der) }

// ParseFingerprint parses 64 hexadecimal digits of any case, with or without colons between the bytes.
func ParseFingerprint(text string) (f Fingerprint, err error) {
	der, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
	if err != nil || len(der) != len(f) {
		return f, fmt.Errorf("is %s, which is not a SHA-256 fingerprint of 64 hexadecimal digits", message.Quote(text))
	}
	return Fingerprint(der), nil
}

// String returns the fingerprint in hexadecimal digits.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// MarshalText implements [encoding.TextMarshaler].
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (f *Fingerprint) UnmarshalText(text []byte) (err error) {
	*f, err = ParseFingerprint(string(text))
	return err
}

// Fingerprints is a sorted list of fingerprints, each once.
type Fingerprints []Fingerprint

// Has reports whether the fingerprint is on the list.
func (all Fingerprints) Has(f Fingerprint) bool {
	_, found := slices.BinarySearchFunc(all, f, compareFingerprints)
	return found
}

func compareFingerprints(a, b Fingerprint) int { return bytes.Compare(a[:], b[:]) }

// opensslPrefix is what `openssl x509 -fingerprint -sha256` writes before a fingerprint, in small letters.
const opensslPrefix = "sha256 fingerprint="

// parseDistrust parses a list with one fingerprint a line, as openssl may have written it; # begins a comment. It
// never returns nil without an error.
func parseDistrust(text string) (Fingerprints, error) {
	if len(text) > maxDistrust {
		return nil, fmt.Errorf("has %d bytes: at most %d", len(text), maxDistrust)
	}
	found, problems := Fingerprints{}, problem.List{}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if n := len(opensslPrefix); len(line) > n && strings.EqualFold(line[:n], opensslPrefix) {
			line = line[n:]
		}
		f, err := ParseFingerprint(line)
		if err != nil && len(problems) < problem.Max {
			problems = append(problems, fmt.Errorf("line %d %w", number, err))
		}
		found = append(found, f)
	}
	slices.SortFunc(found, compareFingerprints)
	found = slices.Compact(found)
	return found, cmp.Or(problems.Err(), problem.CheckCount(len(found), maxFingerprints, "fingerprints"))
}
