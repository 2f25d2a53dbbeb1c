// Package flagstest is what the tests of the commands have in common.
package flagstest

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
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

// Shells holds what a command prints for shells and man to its flags: bash completes each of them after its verb, and
// the manual page has each, in lines that man reads as text.
func Shells(t *testing.T, c flags.Command) {
	t.Helper()
	print := func(words ...string) string {
		code, stdout, stderr := Run(t.Context(), c, nil, words...)
		if code != flags.ExitOK || stderr != "" {
			t.Fatalf("%v: exit code %d, %s", words, code, stderr)
		}
		return stdout
	}
	page, fish := print("man"), print("completion", "fish")
	for _, verb := range c.Verbs {
		completed := completed(t, c, print("completion", "bash"), verb.Words)
		verb.Flags().VisitAll(func(f *flag.Flag) {
			name := "--" + f.Name
			if !slices.Contains(completed, name) {
				t.Errorf("bash does not complete %s after %s", name, verb.Words)
			}
			if !strings.Contains(page, "\n.B "+strings.ReplaceAll(name, "-", `\-`)+"\n") {
				t.Errorf("the manual page lacks %s", name)
			}
			if !strings.Contains(fish, " -l "+f.Name+" ") {
				t.Errorf("fish does not complete %s", name)
			}
		})
	}
	for line := range strings.Lines(page) {
		if macro, _, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasPrefix(line, ".") &&
			!slices.Contains([]string{".TH", ".SH", ".SS", ".TP", ".B", ".br"}, macro) {
			t.Errorf("the manual page has a line that is no text: %s", line)
		}
	}
	if zsh := print("completion", "zsh"); !strings.Contains(zsh, "bashcompinit\n"+print("completion", "bash")) {
		t.Error("zsh does not run the script of bash")
	}
	if code, _, _ := Run(t.Context(), c, nil, "completion"); code != flags.ExitUsage {
		t.Errorf("no shell: exit code %d", code)
	}
}

// completed returns what bash completes after words of the command line, by the script.
func completed(t *testing.T, c flags.Command, script, words string) []string {
	t.Helper()
	function := "_" + strings.ReplaceAll(c.Name, "-", "_")
	line := fmt.Sprintf("COMP_WORDS=(%s %s ''); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); %s; echo \"${COMPREPLY[@]}\"",
		c.Name, words, function)
	// #nosec G204 -- The script is that of the command.
	out, err := exec.CommandContext(t.Context(), "bash", "-ec", script+"\n"+line).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.Fields(string(out))
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
