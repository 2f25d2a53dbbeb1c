package store

import (
	"log/slog"

	"github.com/mayfly-csi/mayfly/driver/volume"
)

// Attr returns the attributes of the volume in log lines.
func (v *Volume) Attr() slog.Attr { return Attr(v.id, v.Record().Asked) }

// Attr returns the attributes of a volume in log lines: its id, and its pod if asked has it. slog puts them in the line
// as if they were given one by one (log/slog, Handler: a group without a name).
func Attr(id string, asked volume.Asked) slog.Attr {
	const longest, longestNamespace = 253, 63 // Of names in Kubernetes. Without podInfoOnMount a pod's author sets them.
	pod := asked.Pod()
	if pod.Name == "" || len(pod.Name) > longest || len(pod.Namespace) > longestNamespace {
		return slog.String("volume", id)
	}
	return slog.Group("", "volume", id, "pod", pod.Namespace+"/"+pod.Name)
}
