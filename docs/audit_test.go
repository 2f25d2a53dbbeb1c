package docs_test

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/signer/controller/audit"
)

// TestAuditRecord: audit.md has every field of a record in its order and no other, and its examples are records.
func TestAuditRecord(t *testing.T) {
	text, err := os.ReadFile("audit.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	in := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Za-z0-9.]+)` \\| ([^|]+) \\| ").FindAllStringSubmatch(string(text), -1) {
		documented = append(documented, row[1])
		in[row[1]] = row[2]
	}
	if fields := jsonFields(reflect.TypeFor[audit.Record](), ""); !slices.Equal(documented, fields) {
		t.Errorf("audit.md has the fields\n%q\nand a record\n%q", documented, fields)
	}
	examples := blocks(t, "audit.md", "json")
	if len(examples) != 4 {
		t.Fatalf("there are %d examples", len(examples))
	}
	for _, example := range examples {
		checkExample(t, example, in)
	}
}

// checkExample checks that an example is a record of which each field is said to be in its kind.
func checkExample(t *testing.T, example string, in map[string]string) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(example))
	decoder.DisallowUnknownFields()
	var record audit.Record
	if err := decoder.Decode(&record); err != nil {
		t.Fatalf("%s: %v", example, err)
	}
	again, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, []byte(example)); err != nil {
		t.Fatal(err)
	}
	if compact.String() != string(again) {
		t.Errorf("the example is written as\n%s\nand not as\n%s", again, &compact)
	}
	var fields map[string]any
	if err := json.Unmarshal([]byte(example), &fields); err != nil {
		t.Fatal(err)
	}
	for name, value := range fields {
		if _, nested := value.(map[string]any); nested {
			name += ".name"
		}
		if in[name] != "all" && !strings.Contains(in[name], record.Audit) {
			t.Errorf("%s is in %s, and a %s has it", name, in[name], record.Audit)
		}
	}
}

// jsonFields returns the names of a struct's fields in JSON; embedded ones are its own.
func jsonFields(of reflect.Type, prefix string) (names []string) {
	for f := range of.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch inner := f.Type; {
		case f.Anonymous:
			names = append(names, jsonFields(inner, prefix)...)
		case inner.Kind() == reflect.Pointer:
			names = append(names, jsonFields(inner.Elem(), prefix+name+".")...)
		default:
			names = append(names, prefix+name)
		}
	}
	return names
}
