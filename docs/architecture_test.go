package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTheArchitectureIsThatOfTheCode: architecture.md lists every package below driver and signer and no other, and every
// file, type and function that it names exists.
func TestTheArchitectureIsThatOfTheCode(t *testing.T) {
	packages := map[string]bool{}
	for _, root := range []string{"driver", "signer"} {
		err := filepath.WalkDir("../"+root, func(path string, _ fs.DirEntry, err error) error {
			if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				packages[strings.TrimPrefix(filepath.Dir(path), "../")] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(blocks(t, "architecture.md", "text")[0]) {
		name, _, _ := strings.Cut(line, " ")
		if !packages[name] {
			t.Errorf("%s is listed twice or is no package", name)
		}
		delete(packages, name)
	}
	for name := range packages {
		t.Errorf("%s is not listed", name)
	}
	text, err := os.ReadFile("architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:cmd|driver|signer)/[^`]+)`(?: \\(([^)]+)\\))?").FindAllStringSubmatch(string(text), -1)
	if len(named) < 20 {
		t.Errorf("it names %d files", len(named))
	}
	for _, n := range named {
		checkNames(t, n[1], regexp.MustCompile(`\w+`).FindAllString(n[2], -1))
	}
	if questions := strings.Count(string(text), "? | "); questions != 23 {
		t.Errorf("it has %d questions", questions)
	}
}

// checkNames checks that a file or package exists and declares the names.
func checkNames(t *testing.T, path string, names []string) {
	t.Helper()
	if _, err := os.Stat("../" + path); err != nil {
		t.Error(err)
		return
	}
	if len(names) == 0 {
		return
	}
	source, err := os.ReadFile("../" + path)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !regexp.MustCompile(`(?m)^(func |type )(\([^)]*\) )?` + name + `\b`).Match(source) {
			t.Errorf("%s declares no %s", path, name)
		}
	}
}
