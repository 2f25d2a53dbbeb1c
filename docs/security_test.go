package docs_test

import (
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
