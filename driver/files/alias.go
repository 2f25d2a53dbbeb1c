package files

import (
	"crypto/hmac"
	"crypto/sha1" // #nosec G505 -- The MAC of the profiles that older readers know.
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
	"slices"
	"unicode/utf16"
)

// The parts of a PKCS#12 store that an alias changes (RFC 7292, section 4).
type (
	pfx struct {
		Version  int
		AuthSafe data
		MACData  struct {
			MAC struct {
				Algorithm pkix.AlgorithmIdentifier
				Digest    []byte
			}
			Salt       []byte
			Iterations int `asn1:"optional,default:1"`
		}
	}
	data struct {
		Type    asn1.ObjectIdentifier
		Content []byte `asn1:"tag:0,explicit"`
	}
	safeBag struct {
		ID         asn1.ObjectIdentifier
		Value      asn1.RawValue
		Attributes []asn1.RawValue `asn1:"set,optional"`
	}
	attribute struct {
		ID     asn1.ObjectIdentifier
		Values []asn1.RawValue `asn1:"set"`
	}
)

// setAlias gives the key of a PKCS#12 store an alias: the friendlyName of its bag (RFC 2985, section 5.5.1). The
// library gives one to CA certificates alone. In its stores the last part is not encrypted, and has the bag of the key.
func setAlias(store []byte, alias, password string) ([]byte, error) {
	var p pfx
	var parts []asn1.RawValue
	var last data
	var bags []safeBag
	_, err := asn1.Unmarshal(store, &p)
	if err == nil {
		_, err = asn1.Unmarshal(p.AuthSafe.Content, &parts)
	}
	if err == nil && len(parts) > 0 {
		_, err = asn1.Unmarshal(parts[len(parts)-1].FullBytes, &last)
	}
	if err == nil {
		_, err = asn1.Unmarshal(last.Content, &bags)
	}
	if err == nil && len(bags) != 1 {
		err = fmt.Errorf("it has %d keys", len(bags))
	}
	if err != nil {
		return nil, fmt.Errorf("set the alias of a PKCS#12 store: %w", err)
	}
	name, err := friendlyName(alias)
	if err != nil {
		return nil, err
	}
	bags[0].Attributes = append(bags[0].Attributes, name)
	if last.Content, err = asn1.Marshal(bags); err != nil {
		return nil, err
	}
	if parts[len(parts)-1].FullBytes, err = asn1.Marshal(last); err != nil {
		return nil, err
	}
	if p.AuthSafe.Content, err = asn1.Marshal(parts); err != nil {
		return nil, err
	}
	if err := p.sign(password); err != nil {
		return nil, err
	}
	return asn1.Marshal(p)
}

// friendlyName returns the attribute that has an alias.
func friendlyName(alias string) (asn1.RawValue, error) {
	value := asn1.RawValue{Tag: asn1.TagBMPString, Bytes: bmp(alias)}
	oid := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 20}
	der, err := asn1.Marshal(attribute{oid, []asn1.RawValue{value}})
	return asn1.RawValue{FullBytes: der}, err
}

// bmp encodes a text as a BMPString (X.690, section 8.23.8).
func bmp(text string) (encoded []byte) {
	for _, unit := range utf16.Encode([]rune(text)) {
		encoded = append(encoded, byte(unit>>8), byte(unit))
	}
	return encoded
}

// sign computes the store's MAC anew (RFC 7292, section 4).
func (p *pfx) sign(password string) error {
	var newHash func() hash.Hash
	switch mac := p.MACData.MAC.Algorithm.Algorithm; {
	case mac.Equal(asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}):
		newHash = sha1.New
	case mac.Equal(asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}):
		newHash = sha256.New
	default:
		return errors.New("set the alias of a PKCS#12 store: unknown MAC " + mac.String())
	}
	mac := hmac.New(newHash, macKey(newHash(), p.MACData.Salt, append(bmp(password), 0, 0), p.MACData.Iterations))
	mac.Write(p.AuthSafe.Content)
	p.MACData.MAC.Digest = mac.Sum(nil)
	return nil
}

// macKey derives the key of the MAC (RFC 7292, appendix B.2, with the ID 3). It is as long as one hash.
func macKey(h hash.Hash, salt, password []byte, iterations int) []byte {
	block := h.BlockSize()
	key := slices.Concat(slices.Repeat([]byte{3}, block), fill(salt, block), fill(password, block))
	for range iterations {
		h.Reset()
		h.Write(key)
		key = h.Sum(nil)
	}
	return key
}

// fill repeats a text up to the end of a block.
func fill(text []byte, block int) []byte {
	size := (len(text) + block - 1) / block * block
	return slices.Repeat(text, size/len(text)+1)[:size]
}
