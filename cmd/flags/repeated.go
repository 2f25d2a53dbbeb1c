package flags

import (
	"fmt"
	"slices"
	"strings"
)

// A Repeated flag has several values: with commas between them, or by repeating the flag.
type Repeated[T comparable] struct {
	Values []T

	read        func(string) (T, error)
	replaceNext bool // The next Set replaces the values: those of the default, or of the environment.
}

// Repeat makes a flag whose values read parses.
func Repeat[T comparable](read func(string) (T, error), standard ...T) *Repeated[T] {
	return &Repeated[T]{read: read, Values: standard, replaceNext: true}
}

// String returns the values with commas between them.
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
	if r.replaceNext {
		r.Values, r.replaceNext = nil, false
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

// replace makes the next Set replace the values.
func (r *Repeated[T]) replace() { r.replaceNext = true }
