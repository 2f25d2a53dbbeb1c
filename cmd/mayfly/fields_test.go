package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// maxFields is how many fields a struct of the node plugin may have: one with more has several concerns.
const maxFields = 16

// TestStructsAreSmall holds the structs of package driver, of the packages below it and of package spec to maxFields.
func TestStructsAreSmall(t *testing.T) {
	sizes := fieldsOfStructs(t, "../../driver")
	maps.Copy(sizes, fieldsOfStructs(t, "../../signer/spec"))
	if len(sizes) < 50 {
		t.Fatalf("%d structs were found", len(sizes))
	}
	for _, name := range slices.Sorted(maps.Keys(sizes)) {
		n := sizes[name]
		if n > maxFields {
			t.Errorf("%s has %d fields", name, n)
		}
		if n > maxFields/2 {
			t.Logf("%s has %d fields", name, n)
		}
	}
}

// fieldsOfStructs returns the number of fields of each named struct below a directory, embedded ones included.
func fieldsOfStructs(t *testing.T, root string) map[string]int {
	t.Helper()
	sizes := map[string]int{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(filepath.Dir(root), filepath.Dir(path))
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if s, ok := spec.Type.(*ast.StructType); ok {
					sizes[dir+"."+spec.Name.Name] = count(s)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sizes
}

// count returns the number of fields; an embedded type is one.
func count(s *ast.StructType) (n int) {
	for _, f := range s.Fields.List {
		n += max(1, len(f.Names))
	}
	return n
}
