package trust

import (
	"bytes"
	"slices"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

// Text returns the text of the roots: that of the one source, with what the roots have besides. It returns nil where
// the source has none, or some of its certificates are not among the roots.
func (m Memory) Text(sources []volume.Source, roots chain.Bundle) []byte {
	if len(sources) != 1 {
		return nil
	}
	source := m.sources[sources[0].String()]
	n := len(source.certificates)
	if source.text == nil || n > len(roots) || !roots[:n].Equal(source.certificates) {
		return nil
	}
	text := source.text
	if n < len(roots) {
		text = slices.Concat(bytes.TrimRight(text, "\n"), []byte("\n"), roots[n:].Encode())
	}
	return text
}
