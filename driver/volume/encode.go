package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/mayfly-csi/mayfly/signer/spec"
)

// encoded is a volume as a record has it: JSON would leave a URI's user out (RFC 3986, section 3.2.1).
type encoded struct {
	Volume
	URIs []string
	Old  bool `json:",omitzero"` // Of an earlier driver: the dialect is csi-driver's.
}

// Encode writes a volume as JSON that [Decode] reads: what [Parse] made of it outlives the flags and profiles of the
// driver. It has the password of keystores that is among the pod's attributes.
func Encode(v Volume) []byte {
	text, err := json.Marshal(encoded{Volume: v, URIs: texts(v.URIs)})
	if err != nil { // No value of a Volume has an encoding that can fail.
		return nil
	}
	return text
}

// Decode reads a volume that Encode wrote, the same or an older version of it. It is not checked again.
func Decode(text []byte) (Volume, error) {
	var e encoded
	if err := json.Unmarshal(text, &e); err != nil {
		return Volume{}, fmt.Errorf("decode the volume: %w", err)
	}
	if e.ID == "" {
		return Volume{}, errors.New("decode the volume: it has no id")
	}
	if e.Old {
		e.Dialect = spec.CSIDriver
	}
	for _, text := range e.URIs {
		uri, err := url.Parse(text)
		if err != nil {
			return Volume{}, fmt.Errorf("decode the volume: %w", err)
		}
		e.Volume.URIs = append(e.Volume.URIs, uri)
	}
	return e.Volume, nil
}

func texts(uris []*url.URL) (all []string) {
	for _, uri := range uris {
		all = append(all, uri.String())
	}
	return all
}

// MarshalText writes the gate as String does.
func (g Gate) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// UnmarshalText reads a gate that MarshalText wrote.
func (g *Gate) UnmarshalText(text []byte) error {
	g.kind, g.key, _ = strings.Cut(string(text), ":")
	if g.kind == conditionGate {
		g.key, g.value, _ = strings.Cut(g.key, "=")
	}
	return nil
}

// NameOf returns the volume's name in its pod, as the kubelet's path has it (kubernetes pkg/volume/csi/csi_mounter.go,
// getTargetPath); empty for another path.
func NameOf(asked Asked) string {
	dir := filepath.Dir(asked.Target)
	if filepath.Base(filepath.Dir(dir)) != "kubernetes.io~csi" {
		return ""
	}
	return filepath.Base(dir)
}
