package message_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/mayfly-csi/mayfly/signer/message"
)

func TestCut(t *testing.T) {
	for _, row := range []struct {
		text    string
		longest int
		want    string
	}{
		{"", 8, ""},
		{"12345678", 8, "12345678"},
		{"123456789", 8, "12345…"},
		{"1234äöü", 8, "1234…"}, // No half of a character.
		{"12345\xff\xff\xff\xff", 8, "12345…"},
	} {
		if got := message.Cut(row.text, row.longest); got != row.want {
			t.Errorf("%q, %d: %q, want %q", row.text, row.longest, got, row.want)
		}
	}
}

func TestACutTextIsValid(t *testing.T) {
	text := strings.Repeat("a€\xf0\x90", 400)
	for longest := 3; longest < 2000; longest++ {
		got := message.Cut(text, longest)
		if len(got) > longest || !utf8.ValidString(got) {
			t.Fatalf("%d: %d bytes, valid: %t", longest, len(got), utf8.ValidString(got))
		}
	}
}
