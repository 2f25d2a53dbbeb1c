package spec

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/mayfly-csi/mayfly/signer/problem"
)

// Values are what a pod, its profile and its dialect say of the attributes of a table.
type Values struct {
	table   *Table
	column  *column
	profile Profile
	inputs  []input // By the row of the table.
}

// An input is what the pod says of an attribute.
type input struct {
	key, value string // As the pod's author writes it, or its name if no pod can; the value is empty if it is absent.
	wrong      bool
}

// Read reads what a pod says in a dialect. The profile counts where the pod says nothing.
func (t *Table) Read(d Dialect, attributes map[string]string, profile Profile) *Values {
	v := &Values{table: t, column: t.columns[d.row().name], profile: profile, inputs: make([]input, len(t.rows))}
	for i, a := range t.rows {
		v.inputs[i].key = a.Name
		if key := v.column.keys[i]; key != "" {
			v.inputs[i] = input{key: key, value: attributes[key]}
		}
		if !a.Secret { // In a password spaces may be meant.
			v.inputs[i].value = strings.TrimSpace(v.inputs[i].value)
		}
	}
	return v
}

// Set calls set for each attribute, in the order of the table, with what was given, or what the profile says, or its
// default. key is how the pod's author writes the attribute.
func (v *Values) Set(set func(a Attribute, key, value string) error) (problems problem.List) {
	for i := range v.table.rows {
		if given := &v.inputs[i]; !given.wrong {
			err := v.setRow(i, set)
			given.wrong = err != nil
			problems = append(problems, problem.Of(err)...)
		}
	}
	return problems
}

func (v *Values) setRow(i int, set func(a Attribute, key, value string) error) error {
	a, key, value := v.table.rows[i], v.inputs[i].key, v.inputs[i].value
	if !utf8.ValidString(value) {
		return problem.New(key, "is not valid UTF-8")
	}
	if profiled := v.profileValue(a); value == "" && profiled != "" {
		key, value = key+" (of the profile)", profiled
	}
	if err := checkValue(value); err != nil {
		return problem.In(key, err)
	}
	return set(a, key, cmp.Or(value, v.column.standards[i]))
}

// profileValue returns the profile's value of an attribute, if it counts.
func (v *Values) profileValue(a Attribute) string {
	if len(v.profile) == 0 || a.Group != "" && slices.ContainsFunc(v.table.rows, func(other Attribute) bool {
		return other.Group == a.Group && v.IsSet(other.Name)
	}) {
		return ""
	}
	return v.profile[a.Name]
}

// KeyOf returns an attribute's key as the pod's author writes it; its name if no pod can.
func (v *Values) KeyOf(name string) string { return v.get(name).key }

// IsSet reports whether the pod says something of an attribute.
func (v *Values) IsSet(name string) bool { return v.get(name).value != "" }

// Says returns what the pod says of an attribute.
func (v *Values) Says(name string) string { return v.get(name).value }

// Wrong reports whether an attribute is wrong by itself.
func (v *Values) Wrong(name string) bool { return v.get(name).wrong }

// Mistake makes an attribute wrong: it is not set.
func (v *Values) Mistake(name string) { v.inputs[v.table.index[name]].wrong = true }

func (v *Values) get(name string) input {
	if i, ok := v.table.index[name]; ok {
		return v.inputs[i]
	}
	return input{}
}

// canGive reports whether a pod can give an attribute in this dialect.
func (v *Values) canGive(name string) bool { return v.KeyOf(name) != name }

// originOf returns an attribute's key, marked where its value is the profile's.
func (v *Values) originOf(name string) string {
	if !v.IsSet(name) && v.profile[name] != "" {
		return v.KeyOf(name) + " (of the profile)"
	}
	return v.KeyOf(name)
}

// Knows reports whether a key is that of an attribute in the dialect.
func (v *Values) Knows(key string) bool {
	_, ok := v.column.index[key]
	return ok
}

// Keys returns the keys of all attributes in the dialect.
func (v *Values) Keys() []string {
	return slices.DeleteFunc(slices.Clone(v.column.keys), func(key string) bool { return key == "" })
}

// Translate returns what [Table.Translate] returns in the dialect.
func (v *Values) Translate(key string) (name, use string) { return v.table.translate(v.column, key) }
