// Package flagstest is what the tests of the commands have in common.
package flagstest

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/cmd/flags"
)

// Run runs the command with an environment, and is its exit code and what it printed.
func Run(
	ctx context.Context, c flags.Command, env map[string]string, args ...string,
) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = c.Run(ctx, args, func(name string) string { return env[name] }, &out, &err)
	return code, out.String(), err.String()
}

// Reference holds the tables of flags in a document to the flags of its commands, one table after the other.
func Reference(t *testing.T, document string, commands ...*flag.FlagSet) {
	t.Helper()
	text, err := os.ReadFile(document) // #nosec G304 -- The test names it.
	if err != nil {
		t.Fatal(err)
	}
	got := slices.DeleteFunc(strings.Split(string(text), "\n"), func(line string) bool {
		return !strings.HasPrefix(line, "| `--")
	})
	var want []string
	for _, f := range commands {
		f.VisitAll(func(f *flag.Flag) { want = append(want, row(f)) })
	}
	for _, row := range want {
		if !slices.Contains(got, row) {
			t.Errorf("%s lacks the row\n%s", document, row)
		}
	}
	if !t.Failed() && !slices.Equal(got, want) {
		t.Errorf("%s has %d rows for %d flags, or in another order", document, len(got), len(want))
	}
}

// row returns a flag's row of a table.
func row(f *flag.Flag) string {
	standard := "–"
	if f.DefValue != "" {
		standard = "`" + f.DefValue + "`"
	}
	// Markdown would take <driver name> for HTML.
	meaning := strings.ReplaceAll(f.Usage, "<", `\<`)
	return fmt.Sprintf("| `--%s` | `%s` | %s | %s |", f.Name, flags.Variable(f.Name), standard, meaning)
}
