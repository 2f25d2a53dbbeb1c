// Package problem collects all that is wrong with what a person wrote, in words for that person.
package problem

import (
	"errors"
	"fmt"
	"strings"

	"github.com/mayfly-csi/mayfly/signer/message"
)

// Max is how many problems of one kind are collected: an event has no room for more.
const Max = 16

// A List is all that is wrong, each a sentence that names its attribute.
type List []error

// Error returns the problems in one line, as `kubectl describe pod` shows it. An event has 1024 characters, some
// 144 of which are the kubelet's (its words, and the volume's name of up to 63); the problems that do not fit are
// counted.
func (l List) Error() string {
	const longest, rest = 1024 - 144, len("; and 999 more")
	var line strings.Builder
	for i, err := range l {
		text := message.Cut(err.Error(), longest-rest)
		if i > 0 && line.Len()+len("; ")+len(text)+rest > longest {
			fmt.Fprintf(&line, "; and %d more", len(l)-i)
			break
		}
		if i > 0 {
			line.WriteString("; ")
		}
		line.WriteString(text)
	}
	return line.String()
}

// Unwrap returns the problems.
func (l List) Unwrap() []error { return l }

// Err returns the problems as an error: nil if there are none.
func (l List) Err() error {
	if len(l) == 0 {
		return nil
	}
	return l
}

// Of returns the problems of an error, which may be several.
func Of(err error) List {
	var several List
	switch {
	case err == nil:
		return nil
	case errors.As(err, &several):
		return several
	}
	return List{err}
}

// New returns a problem: a key and what is wrong with it, formatted as by [fmt.Errorf].
func New(key, format string, args ...any) error {
	return fmt.Errorf("%s "+format, append([]any{key}, args...)...)
}

// In puts a key before each problem of an error.
func In(key string, err error) error {
	var problems List
	for _, e := range Of(err) {
		problems = append(problems, New(key, "%w", e))
	}
	return problems.Err()
}

// CheckSize bounds a text, in bytes.
func CheckSize(text string, most int) error {
	if len(text) > most {
		return fmt.Errorf("has %d bytes: at most %d", len(text), most)
	}
	return nil
}

// CheckCount bounds a list, whose elements have a name in the plural.
func CheckCount(n, most int, elements string) error {
	if n > most {
		return fmt.Errorf("has %d %s: at most %d", n, elements, most)
	}
	return nil
}
