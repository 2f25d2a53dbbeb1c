// Package message makes what others write fit for errors, logs, records, conditions and Events: bounded, and equal
// where the problem is the same.
package message

import "strings"

const (
	// Longest is the greatest size in bytes of an Event's message (k8s.io/kubernetes
	// pkg/apis/core/validation/events.go, NoteLengthLimit), and so of all that a user reads.
	Longest = 1024
	// LongestReason is the greatest size in bytes of a reason. An Event has room for it with the words around it: the
	// times of the next try and of the certificate's end, or the kubelet's own.
	LongestReason = 768
)

const ellipsis = "…"

// Cut returns a text of at most the longest number of bytes, which is valid UTF-8: of a longer text its begin and "…".
func Cut(text string, longest int) string {
	if len(text) <= longest {
		return text
	}
	return strings.ToValidUTF8(text[:longest-len(ellipsis)], "") + ellipsis
}
