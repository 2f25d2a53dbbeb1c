package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryCommandIsRun: each block of commands is of a document whose commands test/cluster runs, or names the test that
// runs it, or says that it is not run, in a comment on the line before.
func TestEveryCommandIsRun(t *testing.T) {
	documents, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	samples, err := os.ReadFile("../test/cluster/samples_test.go")
	if err != nil {
		t.Fatal(err)
	}
	list := regexp.MustCompile(`var ran = \[\]string\{(.*)\}`).FindSubmatch(samples)
	if list == nil {
		t.Fatal("samples_test.go lists no documents")
	}
	tests := testFunctions(t)
	blocks := regexp.MustCompile("(?m)^(.*)\n *```(?:sh|console)\n")
	found := 0
	for _, document := range append(documents, "../README.md", "../CONTRIBUTING.md", "../SECURITY.md") {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range blocks.FindAllStringSubmatch(string(text), -1) {
			found++
			by := regexp.MustCompile(`<!-- run by (\w+) -->`).FindStringSubmatch(block[1])
			switch {
			case strings.Contains(block[1], "<!-- not run: "):
			case by != nil && slices.Contains(tests, by[1]):
			case by == nil && strings.Contains(string(list[1]), `"`+document+`"`):
			default:
				t.Errorf("%s has commands of which nobody says who runs them, after: %s", document, block[1])
			}
		}
	}
	if found < 20 {
		t.Errorf("%d blocks", found)
	}
}

// testFunctions returns the names of all functions of tests.
func testFunctions(t *testing.T) (names []string) {
	t.Helper()
	for _, pattern := range []string{
		"../test/*/*_test.go", "../test/*/*/*_test.go", "../cmd/*/*_test.go", "../manifests/*_test.go", "*_test.go",
		"../driver/*_test.go", "../driver/*/*_test.go", "../signer/*/*_test.go", "../tools/*/*_test.go",
	} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range regexp.MustCompile(`(?m)^func (?:\(\w+ \*?\w+\) )?(\w+)\(`).FindAllSubmatch(text, -1) {
				names = append(names, string(f[1]))
			}
		}
	}
	return names
}

// TestEveryFaultIsMade: each message of troubleshooting.md stands below a comment that names the test that makes it.
func TestEveryFaultIsMade(t *testing.T) {
	text, err := os.ReadFile("troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := testFunctions(t)
	row := regexp.MustCompile("^\\| `")
	by, rows := "", 0
	for line := range strings.Lines(string(text)) {
		switch made := regexp.MustCompile(`^<!-- made by (\w+) -->`).FindStringSubmatch(line); {
		case made != nil:
			by = made[1]
			if !slices.Contains(tests, by) {
				t.Errorf("there is no %s", by)
			}
		case strings.HasPrefix(line, "<!--"):
			by = ""
		case row.MatchString(line):
			rows++
			if by == "" {
				t.Errorf("nobody makes the message %s", line)
			}
		}
	}
	if rows < 24 {
		t.Errorf("%d messages", rows)
	}
}
