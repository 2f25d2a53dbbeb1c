// Package docs_test holds the documentation to the code.
package docs_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/profile"
	"github.com/mayfly-csi/mayfly/signer/spec"
	"github.com/mayfly-csi/mayfly/test/kubelet"
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
			a.Name, cell(a.Default), cell(a.OldDefault), old(a), yes(a.Expanded), a.Meaning, cell(a.Example)))
	}
	compare(t, "Attributes", want)
}

// TestErrors asks the parser for the error of each value that the table has. The table is the place to add an attribute's.
func TestErrors(t *testing.T) {
	values := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z0-9-]+)` \\| `([^`]+)` \\| ").FindAllStringSubmatch(section(t, "Errors"), -1) {
		values[row[1]] = row[2]
	}
	var want []string
	for _, a := range volume.Attributes() {
		want = append(want, fmt.Sprintf("| `%s` | `%s` | `%s` |", a.Name, values[a.Name], refusal(a, values[a.Name])))
	}
	got := strings.Split(section(t, "Errors"), "\n")
	got = slices.DeleteFunc(got, func(line string) bool { return strings.Count(line, " | ") != 2 || !strings.HasPrefix(line, "| `") })
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("reference.md, Errors, has\n%s\nand the parser says\n%s", g, w)
	}
}

// refusal is the parser's error, without the key, for one value of a volume that is otherwise in order.
func refusal(a spec.Attribute, value string) string {
	prefix := spec.Prefix
	asked := volume.Asked{ID: "csi-1", Target: "/t", Asked: spec.Asked{Attributes: map[string]string{
		"csi.storage.k8s.io/pod.name": "web-0", "csi.storage.k8s.io/pod.namespace": "shop", "csi.storage.k8s.io/pod.uid": "7d4f",
		"csi.storage.k8s.io/serviceAccount.name": "web", "csi.storage.k8s.io/ephemeral": "true",
		prefix + "issuer-name": "ca", prefix + "dns-names": "web", prefix + "layout": "pem,pkcs12,jks",
	}}}
	if a.OnlyOld {
		prefix, asked.Driver = spec.OldPrefix, spec.OldDriver
		for _, name := range []string{"issuer-name", "dns-names"} {
			delete(asked.Attributes, spec.Prefix+name)
			asked.Attributes[prefix+name] = "ca"
		}
		asked.Attributes[prefix+"pkcs12-enable"], asked.Attributes[prefix+"pkcs12-password"] = "true", "secret"
	}
	asked.Attributes[prefix+a.Name] = value
	_, err := volume.Parse(asked, volume.Defaults{Defaults: spec.Defaults{TrustDomain: "example.org"}})
	return strings.TrimPrefix(fmt.Sprint(err), prefix+a.Name+" ")
}

// old says under which prefixes an attribute is known.
func old(a spec.Attribute) string {
	if a.OnlyOld {
		return "only"
	}
	return yes(a.Old)
}

func TestLayouts(t *testing.T) {
	var want []string
	for _, l := range volume.Layouts() {
		for i, f := range l.Files {
			meaning := l.Meaning
			if i > 0 {
				meaning = ""
			}
			want = append(want, fmt.Sprintf("| `%s` | `%s` | %s | %s |", l.Name, f.Name, f.Part, meaning))
		}
	}
	compare(t, "Layouts", want)
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

// TestMetrics makes a node plugin, with a registry that keeps what its metrics describe.
func TestMetrics(t *testing.T) {
	var rows metricRows
	log := slog.New(slog.DiscardHandler)
	profiles, err := profile.New(&rest.Config{}, "system", "mayfly", volume.ParseProfiles, log)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	t.Cleanup(func() {
		if err := kubelet.CleanUp(root); err != nil {
			t.Error(err)
		}
	})
	d, err := driver.New(driver.Config{StateDir: filepath.Join(root, "volumes"), Metrics: &rows, Profiles: profiles, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Run(ended); err != nil {
		t.Error(err)
	}
	compare(t, "Metrics", rows)
	for _, name := range regexp.MustCompile(`mayfly_\w+`).FindAllString(section(t, "Metrics"), -1) {
		if !slices.ContainsFunc(rows, func(row string) bool { return strings.HasPrefix(row, "| `"+name+"` |") }) {
			t.Errorf("reference.md, Metrics, names %s, which does not exist", name)
		}
	}
}

// metricRows is a registry that holds the rows of the table of metrics.
type metricRows []string

// description matches the text of a [prometheus.Desc].
var description = regexp.MustCompile(`fqName: "(mayfly_\w+)", help: "([^"]+)"`)

// Register adds the rows of a metric.
func (r *metricRows) Register(c prometheus.Collector) error {
	all := make(chan *prometheus.Desc, 1)
	c.Describe(all)
	m := description.FindStringSubmatch((<-all).String())
	*r = append(*r, fmt.Sprintf("| `%s` | %s |", m[1], m[2]))
	return nil
}

// MustRegister calls Register.
func (r *metricRows) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		_ = r.Register(c)
	}
}

// Unregister does nothing.
func (*metricRows) Unregister(prometheus.Collector) bool { return false }

func TestUsages(t *testing.T) {
	want := "`" + strings.Join(signer.Usages(), "`, `") + "`."
	if !strings.Contains(section(t, "Key usages"), want) {
		t.Errorf("reference.md, Key usages, lacks\n%s", want)
	}
}
