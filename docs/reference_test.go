// Package docs_test holds the documentation to the code.
package docs_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
)

// section is what reference.md says below a heading.
func section(t *testing.T, heading string) string {
	t.Helper()
	text, err := os.ReadFile("reference.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("reference.md has no section %q", heading)
	}
	within, _, _ := strings.Cut(after, "\n## ")
	return within
}

// compare demands that the section's table has the wanted rows in their order, and no other.
func compare(t *testing.T, heading string, want []string) {
	t.Helper()
	got := slices.DeleteFunc(strings.Split(section(t, heading), "\n"), func(line string) bool {
		return !strings.HasPrefix(line, "| `")
	})
	for _, row := range want {
		if !slices.Contains(got, row) {
			t.Errorf("reference.md, %s, lacks the row\n%s", heading, row)
		}
	}
	for _, row := range got {
		if !slices.Contains(want, row) {
			t.Errorf("reference.md, %s, has a row that the code does not know\n%s", heading, row)
		}
	}
	if !t.Failed() && !slices.Equal(got, want) {
		t.Errorf("reference.md, %s: a row is twice there, or they are in another order than in the code", heading)
	}
}

func TestAttributes(t *testing.T) {
	var want []string
	for _, a := range volume.Attributes() {
		want = append(want, fmt.Sprintf("| `%s` | %s | %s | %s | %s | %s | %s |",
			a.Name, cell(a.Default), cell(a.OldDefault), yes(a.Old), yes(a.Expanded), a.Meaning, cell(a.Example)))
	}
	compare(t, "Attributes", want)
}

func cell(value string) string {
	if value == "" {
		return "–"
	}
	return "`" + value + "`"
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// TestMetrics reads the metrics from their source: they are not exported.
func TestMetrics(t *testing.T) {
	source, err := os.ReadFile("../driver/metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range regexp.MustCompile(`Name: "(mayfly_\w+)", Help: "([^"]+)"`).FindAllSubmatch(source, -1) {
		want = append(want, fmt.Sprintf("| `%s` | %s |", m[1], m[2]))
	}
	if len(want) == 0 || len(want) != strings.Count(string(source), "Name: ") {
		t.Fatalf("found %d metrics in their source", len(want))
	}
	compare(t, "Metrics", want)
}

func TestUsages(t *testing.T) {
	want := "`" + strings.Join(signer.Usages(), "`, `") + "`."
	if !strings.Contains(section(t, "Key usages"), want) {
		t.Errorf("reference.md, Key usages, lacks\n%s", want)
	}
}

// TestNotKnown demands that the attributes which the reference calls unknown are.
func TestNotKnown(t *testing.T) {
	_, list, found := strings.Cut(section(t, "The two prefixes"), "Not known, and refused as such:")
	list, _, ended := strings.Cut(list, "\n\n")
	names := regexp.MustCompile("`([a-z0-9-]+)`").FindAllStringSubmatch(list, -1)
	if !found || !ended || len(names) == 0 {
		t.Fatal("reference.md has no list of attributes that are not known")
	}
	for _, name := range names {
		if slices.ContainsFunc(volume.Attributes(), func(a volume.Attribute) bool { return a.Name == name[1] }) {
			t.Errorf("reference.md says that %s is not known", name[1])
		}
	}
}
