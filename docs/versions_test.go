package docs_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestVersions: each row of versions.md says whether it was tried, read or neither. What was tried names tests, and
// they exist; what was read says where.
func TestVersions(t *testing.T) {
	text, err := os.ReadFile("versions.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := testFunctions(t)
	named := regexp.MustCompile("`((?:Test|[a-z]+)[A-Z]\\w*|acme)`")
	state, rows := -1, 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case !strings.HasPrefix(line, "|"):
			state = -1
			for _, name := range named.FindAllStringSubmatch(line, -1) {
				if strings.HasPrefix(name[1], "Test") && !slices.Contains(tests, name[1]) {
					t.Errorf("there is no %s: %s", name[1], line)
				}
			}
			continue
		case slices.Contains(cells, "State"):
			state = slices.Index(cells, "State")
			continue
		case state < 0 || strings.HasPrefix(line, "|---"):
			continue
		}
		rows++
		if len(cells) != state+2 {
			t.Errorf("%d cells: %s", len(cells), line)
			continue
		}
		by := named.FindAllStringSubmatch(cells[state+1], -1)
		for _, name := range by {
			if !slices.Contains(tests, name[1]) {
				t.Errorf("there is no %s: %s", name[1], line)
			}
		}
		switch cells[state] {
		case "tried":
			if len(by) == 0 {
				t.Errorf("no test tried it: %s", line)
			}
		case "read":
			if cells[state+1] == "" {
				t.Errorf("it was read nowhere: %s", line)
			}
		case "unknown":
		default:
			t.Errorf("tried, read or unknown: %s", line)
		}
	}
	if rows < 40 {
		t.Errorf("%d rows", rows)
	}
}
