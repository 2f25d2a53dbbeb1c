package flags

import (
	"fmt"
	"slices"
	"strings"
)

// A Repeated flag has several values: with commas between them, or given again and again.
type Repeated[T comparable] struct {
	Values []T

	read func(string) (T, error)
	over bool // What comes next replaces the values: the first after the default, and the command line after the environment.
}

// Repeat is a flag whose values read reads.
func Repeat[T comparable](read func(string) (T, error), standard ...T) *Repeated[T] {
	return &Repeated[T]{read: read, Values: standard, over: true}
}

// String is the values with commas between them.
func (r *Repeated[T]) String() string {
	if r == nil {
		return ""
	}
	texts := make([]string, len(r.Values))
	for i, v := range r.Values {
		texts[i] = fmt.Sprint(v)
	}
	return strings.Join(texts, ",")
}

// Set adds values.
func (r *Repeated[T]) Set(text string) error {
	if r.over {
		r.Values, r.over = nil, false
	}
	for _, one := range strings.Split(text, ",") {
		value, err := r.read(strings.TrimSpace(one))
		if err != nil {
			return err
		}
		if slices.Contains(r.Values, value) {
			return fmt.Errorf("%q is given twice", strings.TrimSpace(one))
		}
		r.Values = append(r.Values, value)
	}
	return nil
}

// replace has what comes next replace the values.
func (r *Repeated[T]) replace() { r.over = true }
