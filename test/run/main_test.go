package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pass is what go test -json prints for package p with the test TestA and its subtest TestA/b.
const pass = `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestA/b"}
{"Action":"output","Package":"p","Test":"TestA/b","Output":"    a_test.go:1: not so\n"}
{"Action":"pass","Package":"p","Test":"TestA/b","Elapsed":3}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":3.1}
{"Action":"pass","Package":"p","Elapsed":3.2}
`

func TestReport(t *testing.T) {
	for name, row := range map[string]struct {
		outputs map[string]string // Of the parts.
		recipe  string            // What a part does after it has printed that.
		green   bool
		last    string
		says    []string
	}{
		"all pass":       {map[string]string{"unit": pass, "e2e": strings.ReplaceAll(pass, `"p"`, `"q"`)}, "true", true, "4 passed, 0 failed", []string{"unit: ✓  p (3.2s)", "TestA/b", "e2e   passed"}},
		"a test fails":   {map[string]string{"unit": strings.ReplaceAll(pass, `"pass"`, `"fail"`)}, "exit 1", false, "0 passed, 2 failed", []string{"=== FAIL: p TestA/b (3.00s) a_test.go:1: not so", "unit  failed"}},
		"a test skips":   {map[string]string{"unit": strings.Replace(pass, `"pass"`, `"skip"`, 1)}, "true", false, "1 passed, 1 failed", []string{"Skipped", "TestA/b"}},
		"a part fails":   {map[string]string{"unit": pass, "fuzz": "panic: no\n"}, "[ $@ = unit ]", false, "2 passed, 1 failed", []string{"fuzz: panic: no", "fuzz  failed"}},
		"nothing is run": {map[string]string{"unit": ""}, "true", false, "0 passed, 1 failed", nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var names []string
			for part, output := range row.outputs {
				names = append(names, part)
				write(t, filepath.Join(dir, part+".out"), output)
			}
			write(t, filepath.Join(dir, "Makefile"), "%: %.out\n\t@cat $<; "+row.recipe+"\n")
			var out bytes.Buffer
			parts := run(t.Context(), &out, dir, 2, names)
			green := report(&out, parts)
			text := strings.Join(strings.Fields(strings.NewReplacer("|", "", "✓", "✓ ").Replace(out.String())), " ")
			if green != row.green || !strings.HasSuffix(out.String(), "\n"+row.last+"\n") {
				t.Errorf("green is %v, want %v, and the last line %s", green, row.green, row.last)
			}
			for _, words := range row.says {
				if !strings.Contains(text, strings.Join(strings.Fields(words), " ")) {
					t.Errorf("it does not say %q", words)
				}
			}
			if t.Failed() {
				t.Log(out.String())
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
