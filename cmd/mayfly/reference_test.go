package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/cmd/flags"
)

// TestReference holds the table of flags in docs/reference.md to the flags.
func TestReference(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	got := slices.DeleteFunc(strings.Split(string(text), "\n"), func(line string) bool {
		return !strings.HasPrefix(line, "| `--")
	})
	var want []string
	new(options).flags().VisitAll(func(f *flag.Flag) {
		standard := "–"
		if f.DefValue != "" {
			standard = "`" + f.DefValue + "`"
		}
		// Markdown would take <driver name> for HTML.
		meaning := strings.ReplaceAll(f.Usage, "<", `\<`)
		want = append(want, fmt.Sprintf("| `--%s` | `%s` | %s | %s |", f.Name, flags.Variable(f.Name), standard, meaning))
	})
	for _, row := range want {
		if !slices.Contains(got, row) {
			t.Errorf("docs/reference.md lacks the row\n%s", row)
		}
	}
	if len(got) != len(want) {
		t.Errorf("docs/reference.md has %d rows for %d flags", len(got), len(want))
	}
}
