package volume

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/mayfly-csi/mayfly/signer/message"
)

// Problems are all that is wrong with a volume, each a sentence that names its attribute.
type Problems []error

// Error returns the problems in one line, as `kubectl describe pod` shows it. An event has 1024 characters, some
// 144 of which are the kubelet's (its words, and the volume's name of up to 63); the problems that do not fit are
// counted.
func (p Problems) Error() string {
	const longest, rest = 1024 - 144, len("; and 999 more")
	var line strings.Builder
	for i, err := range p {
		text := message.Cut(err.Error(), longest-rest)
		if i > 0 && line.Len()+len("; ")+len(text)+rest > longest {
			fmt.Fprintf(&line, "; and %d more", len(p)-i)
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
func (p Problems) Unwrap() []error { return p }

// err returns the problems as an error: nil if there are none.
func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

// problemsOf returns the problems of an error, which may be several.
func problemsOf(err error) Problems {
	var several Problems
	switch {
	case err == nil:
		return nil
	case errors.As(err, &several):
		return several
	}
	return Problems{err}
}

func problem(key, format string, args ...any) error {
	return fmt.Errorf("%s "+format, append([]any{key}, args...)...)
}

// withKey puts a key before each problem of an error.
func withKey(key string, err error) error {
	var problems Problems
	for _, e := range problemsOf(err) {
		problems = append(problems, problem(key, "%w", e))
	}
	return problems.err()
}

// oneLine makes what another package says fit for a message.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	text = strings.Join(strings.Fields(text), " ")
	const longest = 512
	return message.Cut(text, longest)
}

// quote makes a value fit for a message, whatever is in it. Of a long one it shows the begin.
func quote(value string) string {
	const longest = 64 // Characters, as they are shown.
	end := 0
	for next := range value {
		if len(strconv.QuoteToASCII(value[:next])) > longest+len(`""`) {
			return strconv.QuoteToASCII(value[:end]) + "…"
		}
		end = next
	}
	return strconv.QuoteToASCII(value)
}
