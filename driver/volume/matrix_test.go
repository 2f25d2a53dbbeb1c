package volume_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// The ways in which an attribute may be wrong. Each attribute has a cell for each.
const (
	absent = iota
	empty
	wrongType
	outOfRange
	conflicting // With what else the volume says.
	tooLong
	nonASCII
	path
	variable   // An unknown one, or one where none are replaced.
	unknownKey // The attribute's name, misspelt.
	kinds
)

var kindNames = [kinds]string{"absent", "empty", "wrong type", "out of range", "conflicting", "too long", "not ASCII", "path", "variable", "unknown key"}

// A cell is a value and what becomes of it:
//
//	= value    accepted, with that result
//	! text     refused: the text follows the attribute's key, as any further one does
//	!! text    refused, by another key
//	- reason   there is no such thing
type cell struct {
	value string
	with  string // What else the volume says, "layout=jks uid=0"; replaces the row's.
	want  string
	old   string // Under the old prefix, where it is something else.
}

type row struct {
	name  string
	of    func(v volume.Volume) string // The result.
	with  string                       // What the attribute needs beside it.
	cells [kinds]cell
}

// A dialect is how a volume speaks.
type dialect struct {
	driver, prefix, base string
}

// key is an attribute's, or of one that there is not, under the dialect's prefix if it is known there.
func (d dialect) key(name string) string {
	i := slices.IndexFunc(volume.Attributes(), func(a spec.Attribute) bool { return a.Name == name })
	if d.prefix == spec.OldPrefix && i >= 0 && !volume.Attributes()[i].Old {
		return spec.Prefix + name
	}
	return d.prefix + name
}

// parse is what becomes of a cell's volume.
func (d dialect) parse(r row, kind int) (volume.Volume, error) {
	c, a := r.cells[kind], asked(nil)
	a.Driver = d.driver
	for _, pair := range strings.Fields(d.base + " " + cmpOr(c.with, r.with)) {
		name, value, _ := strings.Cut(pair, "=")
		a.Attributes[d.key(name)] = value
	}
	switch key := d.key(r.name); kind {
	case absent:
		delete(a.Attributes, key)
	case unknownKey:
		a.Attributes[strings.TrimSuffix(key, r.name)+c.value] = "x"
	default:
		a.Attributes[key] = c.value
	}
	return volume.Parse(a, volume.Defaults{Defaults: spec.Defaults{TrustDomain: "example.org", IssuerName: map[bool]string{true: "mesh"}[d.driver == spec.SPIFFEDriver]}})
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// check compares what becomes of a cell with what is wanted.
func (d dialect) check(t *testing.T, r row, kind int) {
	want := r.cells[kind].want
	if d.prefix == spec.OldPrefix {
		want = cmpOr(r.cells[kind].old, want)
	}
	if kind == unknownKey {
		key := d.key(r.name)
		want = fmt.Sprintf("!! %q is not a known attribute: did you mean %s?", strings.TrimSuffix(key, r.name)+r.cells[kind].value, key)
		if d.prefix == spec.OldPrefix {
			if v, err := d.parse(r, kind); err == nil && "!! "+strings.Join(v.Overlooked, "; ") != want {
				t.Errorf("%s: overlooked: %s\nwant %s", key, v.Overlooked, want)
			}
			return
		}
	}
	if reason, none := strings.CutPrefix(want, "- "); none && len(reason) > 3 {
		return
	}
	v, err := d.parse(r, kind)
	var got string
	switch own, its := strings.CutPrefix(fmt.Sprint(err), d.key(r.name)+" "); {
	case err == nil:
		got = "= " + r.of(v)
	case its:
		got = "! " + strings.ReplaceAll(own, d.key(r.name)+" ", "")
	default:
		got = "!! " + err.Error()
	}
	if got != want {
		t.Errorf("%s%s, %s: %q\n got: %s\nwant: %s", d.prefix, r.name, kindNames[kind], r.cells[kind].value, got, want)
	}
}

var (
	ours = dialect{"", spec.Prefix, "issuer-name=ca dns-names=web"}
	old  = dialect{spec.OldDriver, spec.OldPrefix, "issuer-name=ca"}
	mesh = dialect{spec.SPIFFEDriver, spec.SPIFFEDriver + "/", ""}
)

// TestMatrix holds what becomes of each attribute, wrong in each way, in each dialect that knows it.
func TestMatrix(t *testing.T) {
	rows := matrix()
	for _, a := range volume.Attributes() {
		i := slices.IndexFunc(rows, func(r row) bool { return r.name == a.Name })
		if i < 0 {
			t.Errorf("%s has no row", a.Name)
			continue
		}
		for kind, c := range rows[i].cells {
			if c.want == "" && (kind != unknownKey || c.value == "") {
				t.Errorf("%s has no cell for %s", a.Name, kindNames[kind])
				continue
			}
			if !a.OnlyOld {
				ours.check(t, rows[i], kind)
			}
			if a.Old {
				old.check(t, rows[i], kind)
			}
		}
	}
	if len(rows) != len(volume.Attributes()) {
		t.Errorf("%d rows for %d attributes", len(rows), len(volume.Attributes()))
	}
}

// TestAttributesOfAnotherDialect: each is written in one way in each dialect, and the error of another's says in which. It is the only one.
func TestAttributesOfAnotherDialect(t *testing.T) {
	tried := 0
	for _, d := range []dialect{ours, old} {
		for _, other := range []dialect{ours, old, mesh} {
			for _, a := range volume.Attributes() {
				key, use := other.key(a.Name), d.key(a.Name)
				if key == use || other.prefix == spec.Prefix && a.OnlyOld || other.prefix == mesh.prefix && a.Name != "fs-group" {
					continue
				}
				if d.prefix == spec.Prefix && a.OnlyOld {
					use = d.key(a.Instead)
				}
				tried++
				given := asked(nil)
				given.Driver = d.driver
				for _, name := range []string{"issuer-name", "dns-names"} {
					if name != a.Name {
						given.Attributes[d.key(name)] = "a"
					}
				}
				given.Attributes[key] = "x"
				_, err := volume.Parse(given, volume.Defaults{})
				if want := key + " is not an attribute of this driver: use " + use; fmt.Sprint(err) != want {
					t.Errorf("got  %v\nwant %s", err, want)
				}
			}
		}
	}
	if tried < 50 {
		t.Errorf("%d were tried", tried)
	}
}

func matrix() []row {
	return slices.Concat(issuerRows(), subjectRows(), nameRows(), timeRows(), keyRows(), fileRows(), ownerRows(), podRows(), trustRows())
}

// TestMatrixOfTheMesh: csi-driver-spiffe's dialect knows one attribute. Those of others are errors, and what nobody knows is overlooked.
func TestMatrixOfTheMesh(t *testing.T) {
	for _, a := range volume.Attributes() {
		for _, prefix := range []string{spec.Prefix, spec.OldPrefix, mesh.prefix, "example.org/"} {
			if a.Name == "fs-group" {
				continue
			}
			key := prefix + a.Name
			v, err := volume.Parse(volume.Asked{Asked: spec.Asked{Driver: spec.SPIFFEDriver, Attributes: asked(map[string]string{key: "true"}).Attributes}, ID: "csi-1"},
				volume.Defaults{Defaults: spec.Defaults{TrustDomain: "example.org", IssuerName: "mesh"}})
			want := fmt.Sprintf("%q is not a known attribute: spiffe.csi.cert-manager.io knows spiffe.csi.cert-manager.io/fs-group", key)
			got := strings.Join(v.Overlooked, "; ")
			if key == ours.key(a.Name) || key == old.key(a.Name) {
				got = fmt.Sprint(err)
			}
			if got != want {
				t.Errorf("%s: %s (%v)\nwant %s", key, got, err, want)
			}
		}
	}
	i := slices.IndexFunc(matrix(), func(r row) bool { return r.name == "fs-group" })
	group := matrix()[i]
	group.cells[conflicting] = cell{want: "- gid is not known here"}
	for kind := range group.cells {
		if kind != unknownKey {
			mesh.check(t, group, kind)
		}
	}
}
