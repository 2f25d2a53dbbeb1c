package files

import (
	"fmt"

	"github.com/mayfly-csi/mayfly/driver/volume"
)

// A Content is what the layouts are made of, each in PEM.
type Content struct {
	Key    []byte // As the volume's encoding says.
	Chain  []byte // The leaf first.
	CA     []byte // May be empty: not every issuer tells its CA.
	Bundle []byte // The key as PKCS#8, then the chain.
}

// Arrange is the set of files that the volume's layouts make of the content.
func Arrange(v volume.Volume, c Content) (Set, error) {
	set := Set{}
	for _, layout := range v.Layouts {
		switch layout {
		case volume.PEM:
			set[v.Files.Key], set[v.Files.Certificate], set[v.Files.CA] = c.Key, c.Chain, c.CA
		case volume.Bundle:
			set[volume.BundleFile] = c.Bundle
		default:
			return nil, fmt.Errorf("arrange the files: unknown layout %q", layout)
		}
	}
	return set, nil
}
