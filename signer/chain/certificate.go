// Package chain parses and encodes certificates in PEM, and builds the path from a certificate to its issuer's CA.
//
// All certificates are parsed here, with one set of limits, and none is dropped without an error. A certificate that
// crypto/x509 can't parse keeps its bytes and its place.
package chain

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/mayfly-csi/mayfly/signer/message"
)

// A Certificate is one certificate in DER. Values come from [Parse], [FromDER] and [Of].
type Certificate struct {
	raw             []byte
	subject, issuer []byte            // DER.
	parsed          *x509.Certificate // nil: crypto/x509 can't parse it.
	problem         error             // Why it can't.
}

// Of wraps a certificate that was parsed.
func Of(c *x509.Certificate) Certificate {
	return Certificate{raw: c.Raw, subject: c.RawSubject, issuer: c.RawIssuer, parsed: c}
}

// FromDER parses a certificate. One that crypto/x509 can't parse is an error only if it does not have the form of a
// certificate either. It has no limits; [Parse], which reads what comes from outside, has.
func FromDER(der []byte) (Certificate, error) {
	parsed, err := x509.ParseCertificate(der)
	if err == nil {
		return Of(parsed), nil
	}
	subject, issuer, ok := names(der)
	if !ok {
		return Certificate{}, err
	}
	return Certificate{raw: bytes.Clone(der), subject: subject, issuer: issuer, problem: truncate(err)}, nil
}

// names returns subject and issuer of a certificate of which only the outer form has to be right (RFC 5280,
// section 4.1).
func names(der []byte) (subject, issuer []byte, ok bool) {
	input := cryptobyte.String(der)
	var certificate, tbs, subjectDER, issuerDER cryptobyte.String
	ok = input.ReadASN1(&certificate, cbasn1.SEQUENCE) && input.Empty() &&
		certificate.ReadASN1(&tbs, cbasn1.SEQUENCE) &&
		certificate.SkipASN1(cbasn1.SEQUENCE) && certificate.SkipASN1(cbasn1.BIT_STRING) && certificate.Empty() &&
		tbs.SkipOptionalASN1(cbasn1.Tag(0).ContextSpecific().Constructed()) && // The version.
		tbs.SkipASN1(cbasn1.INTEGER) && tbs.SkipASN1(cbasn1.SEQUENCE) && // Serial number and algorithm.
		tbs.ReadASN1Element(&issuerDER, cbasn1.SEQUENCE) && tbs.SkipASN1(cbasn1.SEQUENCE) && // The validity.
		tbs.ReadASN1Element(&subjectDER, cbasn1.SEQUENCE) && tbs.SkipASN1(cbasn1.SEQUENCE) // The public key.
	return bytes.Clone(subjectDER), bytes.Clone(issuerDER), ok
}

// Raw returns the DER, which must not be changed.
func (c Certificate) Raw() []byte { return c.raw }

// X509 returns the parsed certificate, or why crypto/x509 can't parse it.
func (c Certificate) X509() (*x509.Certificate, error) {
	if c.parsed == nil && c.problem == nil {
		return nil, errors.New("no certificate")
	}
	return c.parsed, c.problem
}

// Equal reports whether two certificates are the same, byte for byte.
func (c Certificate) Equal(other Certificate) bool { return bytes.Equal(c.raw, other.raw) }

// Issuer returns the name of the issuer in DER.
func (c Certificate) Issuer() []byte { return c.issuer }

// Subject returns the name of the subject in DER.
func (c Certificate) Subject() []byte { return c.subject }

// Expired reports whether the certificate has expired at a time. One that can't be parsed has not.
func (c Certificate) Expired(at time.Time) bool {
	return c.parsed != nil && !c.parsed.NotAfter.After(at)
}

// SelfIssued reports whether the certificate names itself as its issuer, as roots do.
func (c Certificate) SelfIssued() bool { return bytes.Equal(c.subject, c.issuer) }

// rootSignature reports whether a certificate with this result of checking its own signature counts as a root.
func rootSignature(err error) bool {
	unchecked := errors.Is(err, x509.ErrUnsupportedAlgorithm) || errors.As(err, new(x509.InsecureAlgorithmError))
	return err == nil || unchecked
}

// checkSignature checks the signature of a parsed certificate with the key of another.
func (c Certificate) checkSignature(issuer *x509.Certificate) error {
	return issuer.CheckSignature(c.parsed.SignatureAlgorithm, c.parsed.RawTBSCertificate, c.parsed.Signature)
}

// MayIssue reports whether names and key identifiers let the certificate be the issuer of another. It checks no
// signature.
func (c Certificate) MayIssue(other Certificate) bool {
	own, wanted := keyIDs(c, other)
	return bytes.Equal(c.subject, other.issuer) && (len(own) == 0 || len(wanted) == 0 || bytes.Equal(own, wanted))
}

// mustIssue reports whether name and key identifier say that the certificate is the issuer of another.
func (c Certificate) mustIssue(other Certificate) bool {
	own, wanted := keyIDs(c, other)
	return bytes.Equal(c.subject, other.issuer) && len(own) > 0 && bytes.Equal(own, wanted)
}

// keyIDs returns the key identifier of one certificate, and that which another has for its issuer. Both may be
// empty.
func keyIDs(issuer, of Certificate) (own, wanted []byte) {
	if issuer.parsed == nil || of.parsed == nil {
		return nil, nil
	}
	return issuer.parsed.SubjectKeyId, of.parsed.AuthorityKeyId
}

// String returns the subject, or the hash if the subject is empty or unfit for a message.
func (c Certificate) String() string {
	var subject pkix.RDNSequence
	const longest = 200
	if len(c.subject) > 4*longest { // RDNSequence.String takes the square of that.
		return c.hash()
	}
	if rest, err := asn1.Unmarshal(c.subject, &subject); err == nil && len(rest) == 0 && len(subject) > 0 {
		if name := subject.String(); len(name) <= longest && !strings.ContainsFunc(name, unicode.IsControl) {
			return name
		}
	}
	return c.hash()
}

func (c Certificate) hash() string {
	return fmt.Sprintf("the certificate with SHA-256 %x", sha256.Sum256(c.raw))
}

// truncate truncates an error that quotes much of a certificate.
func truncate(err error) error {
	const longest = 300
	if text := err.Error(); len(text) > longest {
		return errors.New(message.Cut(text, longest))
	}
	return err
}

// isFor reports whether the certificate is for the key.
func (c Certificate) isFor(key crypto.PublicKey) bool {
	public, ok := key.(interface{ Equal(crypto.PublicKey) bool })
	return ok && c.parsed != nil && public.Equal(c.parsed.PublicKey)
}

// checkKeySize returns an error for a key that takes too long to verify with.
func (c Certificate) checkKeySize() error {
	if c.parsed == nil {
		return nil
	}
	if key, ok := c.parsed.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > MaxKeyBits {
		return fmt.Errorf("its RSA key has %d bits: the limit is %d", key.N.BitLen(), MaxKeyBits)
	}
	return nil
}

// A Bundle is a list of certificates.
type Bundle []Certificate

// BundleOf wraps certificates that were parsed.
func BundleOf(all ...*x509.Certificate) Bundle {
	b := make(Bundle, len(all))
	for i, c := range all {
		b[i] = Of(c)
	}
	return b
}

// X509 returns all certificates; one that crypto/x509 can't parse is an error.
func (b Bundle) X509() ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for _, c := range b {
		parsed, err := c.X509()
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", c, err)
		}
		all = append(all, parsed)
	}
	return all, nil
}

// Has reports whether a certificate is in the bundle.
func (b Bundle) Has(c Certificate) bool {
	for _, one := range b {
		if one.Equal(c) {
			return true
		}
	}
	return false
}

// Equal reports whether two bundles have the same certificates in the same order.
func (b Bundle) Equal(other Bundle) bool {
	if len(b) != len(other) {
		return false
	}
	for i := range b {
		if !b[i].Equal(other[i]) {
			return false
		}
	}
	return true
}

// Unparsed names, the certificates that crypto/x509 can't parse: the first of many.
func (b Bundle) Unparsed() (messages []string) {
	const most = 5
	unread := b.unparsed()
	for _, c := range unread[:min(len(unread), most)] {
		message := fmt.Sprintf("%s can't be parsed (%v): it is passed on as it is, unchecked", c, c.problem)
		messages = append(messages, message)
	}
	if more := len(unread) - most; more > 0 {
		const format = "%d more certificates can't be parsed, and are passed on as they are"
		messages = append(messages, fmt.Sprintf(format, more))
	}
	return messages
}

// Parsed returns the certificates that crypto/x509 can parse.
func (b Bundle) Parsed() Bundle {
	return slices.DeleteFunc(slices.Clone(b), func(c Certificate) bool { return c.parsed == nil })
}

// unparsed returns the certificates that crypto/x509 can't parse.
func (b Bundle) unparsed() (unparsed Bundle) {
	for _, c := range b {
		if c.parsed == nil {
			unparsed = append(unparsed, c)
		}
	}
	return unparsed
}

// Unite returns the certificates of all bundles in order, each once.
func Unite(bundles ...Bundle) (all Bundle) {
	seen := map[string]bool{}
	for _, b := range bundles {
		for _, c := range b {
			if !seen[string(c.raw)] {
				seen[string(c.raw)] = true
				all = append(all, c)
			}
		}
	}
	return all
}
