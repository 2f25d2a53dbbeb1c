package approver

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"

	"github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// errNoIP is that a volume can't be compared yet.
var errNoIP = errors.New("the pod has no IP yet, which its volume asks for")

// compare derives from a pod's volume the request that its node derives, and is the volume with all that is different.
func compare(cr *cmapi.CertificateRequest, asked volume.Asked, defaults volume.Defaults) (volume.Volume, volume.Problems) {
	v, err := volume.Parse(asked, defaults)
	if err != nil {
		return v, volume.Problems{fmt.Errorf("the volume is not understood: %w", err)}
	}
	if v.NeedsIP && len(asked.IPs) == 0 {
		return v, volume.Problems{errNoIP}
	}
	return v, append(object(cr, v), csr(cr.Spec.Request, v)...)
}

// object compares what the request says outside of the signing request.
func object(cr *cmapi.CertificateRequest, v volume.Volume) (problems volume.Problems) {
	differs := func(what string, asked, wants any) {
		problems = append(problems, fmt.Errorf("%s: asked for is %v, and the volume wants %v", what, asked, wants))
	}
	if issuer := (signer.Issuer{Name: cr.Spec.IssuerRef.Name, Kind: cr.Spec.IssuerRef.Kind, Group: cr.Spec.IssuerRef.Group}); issuer != v.Issuer {
		differs("issuer", title(issuer), title(v.Issuer))
	}
	switch {
	case cr.Spec.Duration == nil:
		differs("duration", "none", v.Duration)
	case cr.Spec.Duration.Duration != v.Duration:
		differs("duration", cr.Spec.Duration.Duration, v.Duration)
	}
	if asked, wants := usages(cr.Spec.Usages), usages(v.Usages); !slices.Equal(asked, wants) {
		differs("usages", quoted(asked), quoted(wants))
	}
	if cr.Spec.IsCA != v.IsCA {
		differs("CA", cr.Spec.IsCA, v.IsCA)
	}
	if !maps.Equal(cr.Annotations, v.Annotations) {
		differs("annotations", quoted(pairs(cr.Annotations)), quoted(pairs(v.Annotations)))
	}
	return problems
}

func title(i signer.Issuer) string { return fmt.Sprintf("%q %q of %q", i.Kind, i.Name, i.Group) }

func usages[U ~string](all []U) []string {
	names := make([]string, len(all))
	for i, u := range all {
		names[i] = string(u)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func pairs(all map[string]string) (pairs []string) {
	for _, key := range slices.Sorted(maps.Keys(all)) {
		pairs = append(pairs, key+"="+all[key])
	}
	return pairs
}

// quoted is a list for a message. Of a long one it shows the begin.
func quoted[T any](all []T) string {
	const longest = 256
	var texts []string
	for _, one := range all {
		texts = append(texts, fmt.Sprintf("%q", fmt.Sprint(one)))
	}
	text := "[" + strings.Join(texts, " ") + "]"
	if len(text) > longest {
		return strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return text
}

// csr compares the signing request with the volume's.
func csr(text []byte, v volume.Volume) volume.Problems {
	asked, err := readCSR(text)
	if err != nil {
		return volume.Problems{fmt.Errorf("the signing request is not understood: %w", err)}
	}
	if problem := key(asked.PublicKey, v.Key); problem != nil {
		return volume.Problems{problem}
	}
	if err := asked.CheckSignature(); err != nil { // After the key, whose size bounds the work.
		return volume.Problems{fmt.Errorf("the signature of the signing request is wrong: %w", err)}
	}
	wanted, err := derive(v)
	if err != nil {
		return volume.Problems{err}
	}
	problems := names(asked, wanted)
	if len(problems) == 0 && !same(asked, wanted) {
		problems = volume.Problems{errors.New("the signing request has attributes, extensions or kinds of names that the node plugin does not write")}
	}
	return problems
}

// readCSR reads one signing request in PEM, written as node plugins write it.
func readCSR(text []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || !bytes.Equal(pem.EncodeToMemory(block), text) || len(block.Headers) > 0 {
		return nil, errors.New("it is not one CERTIFICATE REQUEST in PEM and nothing else")
	}
	return x509.ParseCertificateRequest(block.Bytes)
}

// key compares a public key with the kind that the volume asks for.
func key(public any, wants volume.Key) error {
	if request.IsOfKind(public, wants) {
		return nil
	}
	is := request.KindOf(public)
	return fmt.Errorf("key: asked for is %s %d, and the volume wants %s %d", is.Algorithm, is.Size, wants.Algorithm, wants.Size)
}

// derive is the signing request that the node plugin makes for the volume, with a key that is nobody's.
func derive(v volume.Volume) (*x509.CertificateRequest, error) {
	der, err := request.CSR(v, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificateRequest(der)
}

// names compares the names, in words for the pod's author.
func names(asked, wanted *x509.CertificateRequest) (problems volume.Problems) {
	differs := func(what, asked, wants string) {
		if asked != wants {
			problems = append(problems, fmt.Errorf("%s: asked for is %s, and the volume wants %s", what, asked, wants))
		}
	}
	differs("subject", quoted([]any{asked.Subject}), quoted([]any{wanted.Subject}))
	differs("DNS names", quoted(asked.DNSNames), quoted(wanted.DNSNames))
	differs("IP addresses", quoted(asked.IPAddresses), quoted(wanted.IPAddresses))
	differs("URIs", quoted(asked.URIs), quoted(wanted.URIs))
	differs("email addresses", quoted(asked.EmailAddresses), quoted(wanted.EmailAddresses))
	return problems
}

// body is the part of a signing request that is signed (RFC 2986, section 4.1).
type body struct {
	Raw        asn1.RawContent
	Version    int
	Subject    asn1.RawValue
	PublicKey  asn1.RawValue
	Attributes []asn1.RawValue `asn1:"tag:0"`
}

// same reports whether two signing requests differ in their keys alone. It compares bytes: crypto/x509 does not tell of every kind of name, such as other names
// (RFC 5280, section 4.2.1.6), by which a directory may know its users.
func same(asked, wanted *x509.CertificateRequest) bool {
	var b body
	if _, err := asn1.Unmarshal(wanted.RawTBSCertificateRequest, &b); err != nil {
		return false
	}
	b.Raw, b.PublicKey = nil, asn1.RawValue{FullBytes: asked.RawSubjectPublicKeyInfo}
	der, err := asn1.Marshal(b)
	return err == nil && bytes.Equal(der, asked.RawTBSCertificateRequest)
}
