package files

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// A Content has the parts of which files are made. Texts are PEM.
type Content struct {
	Key    []byte       // As the volume's encoding says.
	Chain  chain.Bundle // The leaf first.
	CA     chain.Bundle // May be empty: not every issuer sends its CA.
	CAText []byte       // The text of CA; nil: as it is encoded.
	Bundle []byte       // The key as PKCS#8, then the chain.

	Private  crypto.Signer // The key, for keystores.
	Password string        // Of the stores.
}

// Arrange returns the files that the volume asks for, made of the content.
func Arrange(v volume.Volume, c Content) (Set, error) {
	set := Set{}
	for _, name := range slices.Sorted(maps.Keys(v.Files)) {
		content, err := c.part(v.Files[name], v.Keystore)
		if err != nil {
			return nil, fmt.Errorf("make %s: %w", name, err)
		}
		set[name] = content
	}
	return set, nil
}

// part returns the content of one file.
func (c Content) part(part volume.Part, k volume.Keystore) ([]byte, error) {
	switch part {
	case volume.KeyPart:
		return c.Key, nil
	case volume.ChainPart:
		return c.Chain.Encode(), nil
	case volume.CAPart:
		if c.CAText != nil {
			return c.CAText, nil
		}
		return c.CA.Encode(), nil
	case volume.BundlePart:
		return c.Bundle, nil
	case volume.BelowRootPart:
		return c.belowRoot()
	case volume.CombinedPart:
		return slices.Concat(c.Chain.Encode(), c.Key), nil
	case volume.PKCS12Part:
		return c.pkcs12(k)
	case volume.PKCS12TrustPart:
		return c.pkcs12Trust(k)
	case volume.JKSPart:
		return c.jks(k)
	case volume.JKSTrustPart:
		return c.jksTrust()
	}
	return nil, fmt.Errorf("unknown part %q", part)
}

// belowRoot returns the key as PKCS#8, then the chain without the root, should the issuer have sent it.
func (c Content) belowRoot() ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(c.Private)
	if err != nil {
		return nil, err
	}
	root := func(one chain.Certificate) bool { return one.SelfIssued() && one.MayIssue(one) }
	above := slices.DeleteFunc(slices.Clone(c.Chain[1:]), root)
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	return slices.Concat(text, c.Chain[:1].Encode(), above.Encode()), nil
}
