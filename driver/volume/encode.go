package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/mayfly-csi/mayfly/signer"
)

// Encode writes a volume as JSON that [Decode] reads: what [Parse] made of it outlives the flags and profiles of the
// driver. It has the password of keystores that is among the pod's attributes.
func Encode(v Volume) []byte {
	text, err := json.Marshal(v)
	if err != nil { // No value of a Volume has an encoding that can fail.
		return nil
	}
	return text
}

// Decode reads a volume that Encode wrote, the same or an older version of it. It is not checked again.
func Decode(text []byte) (v Volume, err error) {
	if err := json.Unmarshal(text, &v); err != nil {
		return Volume{}, fmt.Errorf("decode the volume: %w", err)
	}
	if v.ID == "" {
		return Volume{}, errors.New("decode the volume: it has no id")
	}
	return v, nil
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

// PodOf returns the pod for which a volume was asked.
func PodOf(asked Asked) signer.Pod {
	a := asked.Attributes
	return signer.Pod{Namespace: a[podNamespace], Name: a[podName], UID: a[podUID], ServiceAccount: a[serviceAccountName]}
}
