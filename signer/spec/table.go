package spec

import (
	"cmp"
	"slices"
)

// An Attribute is one row of what a pod may ask for.
type Attribute struct {
	Name       string // What follows the prefix.
	Old        bool   // In csi-driver's dialect its prefix is OldPrefix.
	OnlyOld    bool   // Known in csi-driver's dialect alone.
	SPIFFE     bool   // Known in csi-driver-spiffe's dialect: no other is (its internal/csi/driver).
	Instead    string // The name of the attribute that stands for it in the others.
	Default    string // In our dialect.
	OldDefault string // In csi-driver's dialect.
	// SPIFFEDefault is what csi-driver-spiffe gives to all volumes (its internal/csi/driver); empty: as in our dialect.
	SPIFFEDefault string
	Expanded      bool   // Variables are replaced.
	Secret        bool   // A password: taken as it is.
	Group         string // Where the pod gives one attribute of a group, the profile's values of that group do not count.
	Meaning       string // One line of the reference.
	Example       string
}

// InProfiles reports whether a profile may give the attribute: a ConfigMap is no place for passwords.
func (a Attribute) InProfiles() bool { return !a.OnlyOld && !a.Secret && a.Name != "profile" }

// A Table is attributes, with how pods write each of them in each dialect. Make one with [NewTable].
type Table struct {
	rows    []Attribute
	index   map[string]int // Of the rows, by name.
	columns map[Dialect]*column
}

// A column is a table in one dialect.
type column struct {
	keys      []string       // How a pod writes each attribute; empty: it can't.
	standards []string       // The value of each that nobody gives.
	index     map[string]int // Of the keys.
}

// NewTable makes a table of attributes, in the order in which they are set.
func NewTable(rows ...[]Attribute) *Table {
	t := &Table{rows: slices.Concat(rows...), index: map[string]int{}, columns: map[Dialect]*column{}}
	for i, a := range t.rows {
		t.index[a.Name] = i
	}
	for _, d := range dialects() {
		c := &column{index: map[string]int{}}
		for i, a := range t.rows {
			key := d.key(a)
			c.keys, c.standards = append(c.keys, key), append(c.standards, d.standard(a))
			if key != "" {
				c.index[key] = i
			}
		}
		t.columns[d.name] = c
	}
	return t
}

// Attributes returns all rows.
func (t *Table) Attributes() []Attribute { return slices.Clone(t.rows) }

// Get returns the attribute of a name.
func (t *Table) Get(name string) (a Attribute, ok bool) {
	if i, ok := t.index[name]; ok {
		return t.rows[i], true
	}
	return Attribute{}, false
}

// Translate returns the name of the attribute that a key of another dialect means, and its key in this one: empty if
// the dialect has nothing like it. The name is empty if the key is of no other dialect.
func (t *Table) Translate(to Dialect, key string) (name, use string) {
	return t.translate(t.columns[to.row().name], key)
}

func (t *Table) translate(to *column, key string) (name, use string) {
	if _, known := to.index[key]; known || !hasPrefix(key, Prefix, OldPrefix, spiffePrefix) {
		return "", ""
	}
	for _, d := range dialects() {
		if i, ok := t.columns[d.name].index[key]; ok {
			use = to.keys[i]
			if instead, ok := t.index[t.rows[i].Instead]; ok {
				use = cmp.Or(use, to.keys[instead])
			}
			return t.rows[i].Name, use
		}
	}
	return "", ""
}
