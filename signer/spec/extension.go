package spec

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/bits"

	"github.com/mayfly-csi/mayfly/signer"
)

// The identifiers of extensions (RFC 5280, section 4.2.1).
var (
	keyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	subjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	basicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	extendedKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}
)

// extensions returns those of the signing request that crypto/x509 does not write by itself.
func extensions(s Spec) (all []pkix.Extension, err error) {
	add := func(id asn1.ObjectIdentifier, critical bool, value any) {
		der, e := asn1.Marshal(value)
		if err == nil {
			all, err = append(all, pkix.Extension{Id: id, Critical: critical, Value: der}), e
		}
	}
	// The names must be critical where the subject is empty (RFC 5280, section 4.1.2.6), and some signers insist on
	// it. crypto/x509 marks them so in certificates, not in requests.
	anonymous := s.RawSubject == nil && len(s.Subject.ToRDNSequence()) == 0
	if names := names(s); anonymous && len(names) > 0 {
		add(subjectAltName, true, names)
	}
	if !s.SignsUsages {
		return all, err
	}
	key, extended, e := usages(s)
	if e != nil {
		return nil, e
	}
	if key != 0 {
		add(keyUsage, true, bitString(key))
	}
	if len(extended) > 0 {
		add(extendedKeyUsage, false, extended)
	}
	if s.IsCA {
		add(basicConstraints, true, struct{ IsCA bool }{true})
	}
	return all, err
}

// names returns the names as general names (RFC 5280, section 4.2.1.6), in the order of crypto/x509.
func names(s Spec) (all []asn1.RawValue) {
	add := func(tag int, value []byte) {
		all = append(all, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: value})
	}
	for _, dns := range s.DNSNames {
		add(2, []byte(dns))
	}
	for _, ip := range s.IPs {
		if four := ip.To4(); four != nil {
			ip = four
		}
		add(7, ip)
	}
	for _, uri := range s.URIs {
		add(6, []byte(uri.String()))
	}
	return all
}

// usages returns what cert-manager expects of a signing request that has usages: the very ones of the
// CertificateRequest, in its order, and cert sign for a CA (cert-manager pkg/util/pki/certificatetemplate.go,
// CertificateTemplateValidateAndOverrideKeyUsages).
func usages(s Spec) (key x509.KeyUsage, extended []asn1.RawValue, err error) {
	if s.IsCA {
		key = x509.KeyUsageCertSign
	}
	for _, u := range s.Usages {
		k, ext, err := signer.X509([]signer.Usage{u})
		if err != nil {
			return 0, nil, err
		}
		key |= k
		for _, e := range ext {
			id, err := e.OID().MarshalBinary()
			if err != nil {
				return 0, nil, err
			}
			extended = append(extended, asn1.RawValue{Tag: asn1.TagOID, Bytes: id})
		}
	}
	return key, extended, nil
}

// bitString writes key usages: the first bit is the lowest of crypto/x509's (RFC 5280, section 4.2.1.3).
func bitString(usage x509.KeyUsage) asn1.BitString {
	length := bits.Len(uint(usage))
	text := []byte{bits.Reverse8(byte(usage)), bits.Reverse8(byte(usage >> 8))}
	return asn1.BitString{Bytes: text[:(length+7)/8], BitLength: length}
}
