package docs_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// A number of the benchmarks, as their file has it.
type number struct{ Median, Min, Max float64 }

// The table of the document has the numbers of the file, rounded.
func TestTheTableOfBenchmarksIsThatOfTheirFile(t *testing.T) {
	var file struct {
		Drivers []string
		Rows    []struct {
			Name         string
			Floor, Ratio *number
			Drivers      map[string]number
		}
	}
	text, err := os.ReadFile("benchmarks.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Rows) == 0 || len(file.Drivers) == 0 {
		t.Fatal("the file has no numbers")
	}
	table := written(t)
	for _, row := range file.Rows {
		cells := table[row.Name]
		if len(cells) < 7 {
			t.Errorf("%s: the table has %q", row.Name, cells)
			continue
		}
		driver := row.Drivers[file.Drivers[0]]
		for column, want := range map[int]*number{2: row.Floor, 4: &driver, 5: row.Ratio} {
			if cell := cells[column]; !want.is(cell) {
				t.Errorf("%s: the file has %v, and the table %s", row.Name, want, cell)
			}
		}
	}
}

// written is the table that make bench-quick wrote: the cells of its rows, by the first of them.
func written(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "<!-- make bench-quick writes what follows -->")
	table, _, found := strings.Cut(table, "<!-- make bench-quick wrote this -->")
	if !found {
		t.Fatal("the document has no place for the table")
	}
	rows := map[string][]string{}
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "|") {
			continue
		}
		var cells []string
		for _, cell := range strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|") {
			cells = append(cells, strings.TrimSpace(cell))
		}
		rows[cells[0]] = cells
	}
	return rows
}

// is reports whether a cell has this number: its median, and its spread in brackets if there is one; or a dash for
// none.
func (n *number) is(cell string) bool {
	if n == nil {
		return cell == "–"
	}
	rounded := func(f float64, as string) bool {
		_, decimals, _ := strings.Cut(as, ".")
		return strconv.FormatFloat(f, 'f', len(decimals), 64) == as
	}
	parts := regexp.MustCompile(`^([\d.]+)(?: \(([\d.]+)–([\d.]+)\))?$`).FindStringSubmatch(cell)
	if parts == nil || !rounded(n.Median, parts[1]) {
		return false
	}
	return parts[2] == "" || rounded(n.Min, parts[2]) && rounded(n.Max, parts[3])
}
