package chain

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"slices"
)

// The limits of what Parse accepts.
const (
	MaxSize         = 1 << 20   // Bytes of a PEM text. The API server accepts objects of up to 1.5 MiB.
	MaxCertificates = 1024      // In a text. A distribution's bundle has some 150.
	MaxCertificate  = 64 << 10  // Bytes of DER. A signature of SLH-DSA has up to 50,000 (FIPS 205, section 11).
	MaxKeyBits      = 8192      // Of an RSA key: as crypto/tls has it (handshake_client.go).
	MaxChain        = 256 << 10 // Bytes of PEM that a pod sends its peers: OpenSSL accepts 100 KiB of certificates.
)

const pemType = "CERTIFICATE"

// The lines around a PEM block (RFC 7468, section 3).
const (
	dashes    = "-----"
	beginLine = dashes + "BEGIN "
	endLine   = dashes + "END "
)

// Parse parses the certificates of a PEM text in order, at least one. Text between the blocks is ignored, and so are
// lines that begin with #. A block that is damaged, is no certificate or exceeds a limit is an error: no block is
// skipped. A certificate that crypto/x509 can't parse is kept.
func Parse(text []byte) (Bundle, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("the text is %d bytes long: the limit is %d", len(text), MaxSize)
	}
	var found Bundle
	for rest := text; ; {
		body, after, ok, err := next(rest)
		if err == nil && !ok {
			break
		}
		if err == nil && len(found) == MaxCertificates {
			return nil, fmt.Errorf("there are more than %d certificates", MaxCertificates)
		}
		var c Certificate
		if err == nil {
			c, err = decode(body)
		}
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", len(found)+1, err)
		}
		found, rest = append(found, c), after
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("there is no certificate in %d bytes", len(text))
	}
	return found, nil
}

// next returns the body of the first block, and the text after it. Unlike pem.Decode it skips no block that it can't
// read, and needs no line break before one.
func next(text []byte) (body, rest []byte, ok bool, err error) {
	for len(text) > 0 {
		line := text
		if i := bytes.IndexAny(text, "\r\n"); i >= 0 {
			line = text[:i+1]
		}
		switch i := bytes.Index(line, []byte(beginLine)); {
		case bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")):
		case bytes.Contains(line[:max(i, 0)], []byte(endLine)), i < 0 && bytes.Contains(line, []byte(endLine)):
			return nil, nil, false, errors.New("there is an END line without a BEGIN line")
		case i >= 0:
			body, rest, err = block(text[i+len(beginLine):])
			return body, rest, err == nil, err
		case stray.Match(line):
			return nil, nil, false, errors.New("there is base64 of a certificate without a BEGIN line")
		}
		text = text[len(line):]
	}
	return nil, nil, false, nil
}

// stray matches the first line of a certificate in base64: a DER sequence of 256 bytes or more.
var stray = regexp.MustCompile(`^[\s\x{FEFF}]*MII[A-Za-z0-9+/=]{37,}\s*$`)

// block splits a text, which begins with the block's label, after the block's END line.
func block(text []byte) (body, rest []byte, err error) {
	label, text, ok := bytes.Cut(text, []byte(dashes))
	if !ok || bytes.ContainsAny(label, "\r\n") {
		return nil, nil, errors.New("its BEGIN line is damaged")
	}
	if string(label) != pemType {
		return nil, nil, fmt.Errorf("it is a %.64q, not a %s", label, pemType)
	}
	end := bytes.Index(text, []byte(dashes))
	if end < 0 {
		return nil, nil, errors.New("it has no END line")
	}
	rest, ok = bytes.CutPrefix(text[end:], []byte(endLine+pemType+dashes))
	if !ok {
		return nil, nil, errors.New("its END line is missing or damaged")
	}
	return text[:end], rest, nil
}

// decode decodes a block's body.
func decode(body []byte) (Certificate, error) {
	const begin, end = beginLine + pemType + dashes + "\n", "\n" + endLine + pemType + dashes + "\n"
	block, rest := pem.Decode(slices.Concat([]byte(begin), bytes.TrimSpace(body), []byte(end)))
	switch {
	case block == nil || len(rest) > 0:
		return Certificate{}, errors.New("its base64 is damaged")
	case len(block.Bytes) > MaxCertificate:
		return Certificate{}, fmt.Errorf("it is %d bytes long: the limit is %d", len(block.Bytes), MaxCertificate)
	}
	c, err := FromDER(block.Bytes)
	if err != nil {
		return Certificate{}, fmt.Errorf("it is no certificate: %w", truncate(err))
	}
	return c, c.checkKeySize()
}

// Encode writes the certificates in PEM.
func (b Bundle) Encode() (text []byte) {
	for _, c := range b {
		text = append(text, EncodeDER(c.raw)...)
	}
	return text
}

// EncodeDER writes a certificate in PEM.
func EncodeDER(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}) }

// Encode writes certificates in PEM.
func Encode(all ...*x509.Certificate) []byte { return BundleOf(all...).Encode() }

// Size returns how many bytes Encode writes.
func (b Bundle) Size() (n int) {
	const line = 64
	for _, c := range b {
		body := base64.StdEncoding.EncodedLen(len(c.raw))
		n += len(beginLine+endLine) + 2*len(pemType+dashes+"\n") + body + (body+line-1)/line
	}
	return n
}
