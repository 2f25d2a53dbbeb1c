package proof

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// The API server takes no event with a longer note (k8s.io/kubernetes pkg/apis/core/validation/events.go).
func TestBrief(t *testing.T) {
	for _, text := range []string{strings.Repeat("a", 1024), strings.Repeat("a", 1025), strings.Repeat("ü", 600), "a" + strings.Repeat("ü", 600)} {
		got := Brief(text)
		if len(got) > 1024 || len(got) < 1020 || !utf8.ValidString(got) || strings.HasSuffix(got, "…") != (len(text) > 1024) {
			t.Errorf("%d bytes: %q", len(got), got)
		}
	}
	if got := Denied(Refuse(NoVolume, "%s", strings.Repeat("a", 2000))).Message; len(got) != 1024 {
		t.Error(len(got))
	}
}
