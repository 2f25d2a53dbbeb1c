package main

import (
	"fmt"
	"slices"
	"strings"
)

// A repeated flag has several values: with commas between them, or given again and again.
type repeated[T comparable] struct {
	read   func(string) (T, error)
	values []T
	over   bool // What comes next replaces the values: the first after the default, and the command line after the environment.
}

// repeat is a flag whose values read reads.
func repeat[T comparable](read func(string) (T, error), standard ...T) *repeated[T] {
	return &repeated[T]{read: read, values: standard, over: true}
}

// String is the values with commas between them.
func (r *repeated[T]) String() string {
	if r == nil {
		return ""
	}
	texts := make([]string, len(r.values))
	for i, v := range r.values {
		texts[i] = fmt.Sprint(v)
	}
	return strings.Join(texts, ",")
}

// Set adds values.
func (r *repeated[T]) Set(text string) error {
	if r.over {
		r.values, r.over = nil, false
	}
	for _, one := range strings.Split(text, ",") {
		value, err := r.read(strings.TrimSpace(one))
		if err != nil {
			return err
		}
		if slices.Contains(r.values, value) {
			return fmt.Errorf("%q is given twice", strings.TrimSpace(one))
		}
		r.values = append(r.values, value)
	}
	return nil
}
