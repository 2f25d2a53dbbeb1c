package docs_test

import (
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
)

// Every test and story that security.md names is there, and every policy.
func TestWhatSecurityNamesIsThere(t *testing.T) {
	text, err := os.ReadFile("security.md")
	if err != nil {
		t.Fatal(err)
	}
	var sources, policies strings.Builder
	root := os.DirFS("..")
	err = fs.WalkDir(root, ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := fs.ReadFile(root, path)
		sources.Write(source)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"manifests/controller/policies.yaml", "manifests/modes/pod-certificate/policies.yaml"} {
		source, err := fs.ReadFile(root, path)
		if err != nil {
			t.Fatal(err)
		}
		policies.Write(source)
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, " | ")
		if len(cells) != 3 || !strings.Contains(cells[2], "`") {
			continue
		}
		rows++
		for _, name := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(cells[2], -1) {
			if !regexp.MustCompile(`\nfunc (\(\w+ \*?\w+\) )?` + name[1] + `\(`).MatchString(sources.String()) {
				t.Errorf("there is no test %s: %s", name[1], line)
			}
		}
		for _, name := range regexp.MustCompile("`(mayfly-[a-z-]+)`").FindAllStringSubmatch(cells[1], -1) {
			if !strings.Contains(policies.String(), "\n  name: "+name[1]+"\n") {
				t.Errorf("there is no policy %s: %s", name[1], line)
			}
		}
	}
	if rows < 15 {
		t.Errorf("%d rows name their tests", rows)
	}
}

// security.md lists the checks of the decision in their order, by their names, each with its test and its file.
func TestTheNineChecksAreThoseOfTheCode(t *testing.T) {
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	checks := regexp.MustCompile(`(?m)^\t// Check (\d), ([^:]+): `).FindAllStringSubmatch(read("../signer/decide/decide.go"), -1)
	rows := regexp.MustCompile(`(?m)^\| (\d) \| ([^|]+) \| [^|]+ \| (.+) \| (.+) \| `+"`(\\w+)`"+` \|$`).FindAllStringSubmatch(read("security.md"), -1)
	if len(checks) != 9 || len(rows) != len(checks) {
		t.Fatalf("the code has %d checks, and the document %d", len(checks), len(rows))
	}
	tests := read("../signer/decide/decide_test.go")
	for i, check := range checks {
		row := rows[i]
		if check[1] != fmt.Sprint(i+1) || row[1] != check[1] || row[2] != check[2] {
			t.Errorf("the code has %q, and the document %q", check[1:3], row[1:3])
		}
		if !strings.HasPrefix(row[5], "TestCheck"+check[1]) || !strings.Contains(tests, "\nfunc "+row[5]+"(") {
			t.Errorf("check %s has no test %s", check[1], row[5])
		}
		for _, link := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(row[4], -1) {
			if _, err := os.Stat(link[1]); err != nil {
				t.Errorf("check %s: %v", check[1], err)
			}
		}
		for _, reason := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(row[3], -1) {
			if !strings.Contains(read("../signer/decide/decide.go"), "deny("+reason[1]+",") {
				t.Errorf("check %s does not deny as %s", check[1], reason[1])
			}
		}
	}
}
