package decide

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// KeySize is how many bytes more a signing request has with the greatest key, of RSA with 8,192 bits, than with that of
// [Derive].
const KeySize = 4096

// CSR returns how a signing request, PKCS#10 in DER, differs from the volume's. All is compared byte for byte but the
// key, whose kind is, and the signature, which is checked.
func CSR(der []byte, v spec.Spec) problem.List {
	wanted, err := derivedDER(v)
	if err != nil {
		return problem.List{err}
	}
	if most := len(wanted) + KeySize; len(der) > most {
		const format = "the signing request has %d bytes, and that of the volume at most %d"
		return problem.List{fmt.Errorf(format, len(der), most)}
	}
	asked, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return problem.List{fmt.Errorf("the signing request is not understood: %w", err)}
	}
	if err := key(asked.PublicKey, v.Key); err != nil {
		return problem.List{err}
	}
	if err := asked.CheckSignature(); err != nil { // After the key, whose size bounds the work.
		return problem.List{fmt.Errorf("the signature of the signing request is wrong: %w", err)}
	}
	if !whole(asked) {
		return problem.List{errEncoding}
	}
	if same(asked, wanted) || withoutUsages(asked, v) {
		return nil
	}
	parsed, err := x509.ParseCertificateRequest(wanted)
	if err != nil {
		return problem.List{err}
	}
	if problems := names(asked, parsed); len(problems) > 0 {
		return problems
	}
	return problem.List{errors.New("the signing request has attributes, extensions or kinds of names that the node " +
		"plugin does not write")}
}

// errEncoding says that a signing request has bytes that no signature covers, or that nothing reads.
var errEncoding = errors.New(
	"the signing request is not encoded as crypto/x509 encodes it: it has bytes that mean nothing")

// whole reports whether each byte of a signing request means something: encoding/asn1 overlooks what follows the last
// field of a SEQUENCE, and crypto/x509 the parameters of most algorithms.
func whole(csr *x509.CertificateRequest) bool {
	var all struct {
		Body      asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	if rest, err := asn1.Unmarshal(csr.Raw, &all); err != nil || len(rest) > 0 || all.Signature.BitLength%8 != 0 {
		return false
	}
	parameters := asn1.RawValue{}
	if csr.PublicKeyAlgorithm == x509.RSA {
		parameters = asn1.NullRawValue // RFC 4055, section 5.
	}
	all.Algorithm.Parameters = parameters
	encoded, err := asn1.Marshal(all)
	key, keyErr := x509.MarshalPKIXPublicKey(csr.PublicKey)
	return err == nil && keyErr == nil && bytes.Equal(encoded, csr.Raw) && bytes.Equal(key, csr.RawSubjectPublicKeyInfo)
}

// key compares a public key with the kind that the volume asks for.
func key(public any, wants spec.Key) error {
	if wants.Matches(public) {
		return nil
	}
	is := spec.KindOf(public)
	return fmt.Errorf("key: asked for is %s %d, and the volume wants %s %d",
		is.Algorithm, is.Size, wants.Algorithm, wants.Size)
}

// Derive returns the signing request that the node plugin makes for the volume, with a key that is nobody's.
func Derive(v spec.Spec) (*x509.CertificateRequest, error) {
	der, err := derivedDER(v)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificateRequest(der)
}

// derivedDER returns what [Derive] does, in DER.
func derivedDER(v spec.Spec) ([]byte, error) {
	return v.CSR(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
}

// names compares the names, in words for the pod's author.
func names(asked, wanted *x509.CertificateRequest) (problems problem.List) {
	differs := func(what, asked, wants string) {
		if asked != wants {
			problems = append(problems, difference(what, asked, wants))
		}
	}
	if !bytes.Equal(asked.RawSubject, wanted.RawSubject) {
		differs("subject", subject(asked), subject(wanted))
	}
	differs("DNS names", list(asked.DNSNames), list(wanted.DNSNames))
	differs("IP addresses", list(asked.IPAddresses), list(wanted.IPAddresses))
	differs("URIs", list(asked.URIs), list(wanted.URIs))
	differs("email addresses", list(asked.EmailAddresses), list(wanted.EmailAddresses))
	return problems
}

// subject returns a request's subject for a message. To write one takes the square of its size.
func subject(r *x509.CertificateRequest) string {
	const most = 2048
	if n := len(r.RawSubject); n > most {
		return fmt.Sprintf("one of %d bytes", n)
	}
	return list([]any{r.Subject})
}

// signingRequest is a signing request (RFC 2986, section 4.2).
type signingRequest struct {
	Body      body
	Algorithm asn1.RawValue
	Signature asn1.BitString
}

// body is the part of a signing request that is signed (RFC 2986, section 4.1).
type body struct {
	Raw        asn1.RawContent
	Version    int
	Subject    asn1.RawValue
	PublicKey  asn1.RawValue
	Attributes []asn1.RawValue `asn1:"tag:0"`
}

// same reports whether a signing request differs from one in DER in its key alone. It compares bytes: crypto/x509 does
// not tell of every kind of name, such as other names (RFC 5280, section 4.2.1.6), by which a directory may know its
// users.
func same(asked *x509.CertificateRequest, wanted []byte) bool {
	var r signingRequest
	if _, err := asn1.Unmarshal(wanted, &r); err != nil {
		return false
	}
	r.Body.Raw, r.Body.PublicKey = nil, asn1.RawValue{FullBytes: asked.RawSubjectPublicKeyInfo}
	der, err := asn1.Marshal(r.Body)
	return err == nil && bytes.Equal(der, asked.RawTBSCertificateRequest)
}

// withoutUsages reports whether a signing request is the volume's but for its usages and CA flag, which node plugins
// from before 0.1.0 do not write. A CertificateRequest has them beside it, and is compared;
// for a PodCertificateRequest the controller derives them from the pod.
func withoutUsages(asked *x509.CertificateRequest, v spec.Spec) bool {
	if !v.SignsUsages {
		return false
	}
	v.SignsUsages = false
	wanted, err := derivedDER(v)
	return err == nil && same(asked, wanted)
}
