package spec

import (
	"fmt"
	"strings"
	"time"

	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/problem"
)

// What values of attributes look like.

// List splits a value at commas, trims the elements, and drops those that are empty or repeated.
func List(value string) (elements []string) {
	known := map[string]bool{}
	for e := range strings.SplitSeq(value, ",") {
		if e = strings.TrimSpace(e); e != "" && !known[e] {
			known[e] = true
			elements = append(elements, e)
		}
	}
	return elements
}

// Each calls take for each element of a list, and returns all that is wrong with them.
func (d Dialect) Each(value string, elements []string, take func(string) error) error {
	if len(elements) == 0 && value != "" && !d.Lenient() {
		return EmptyList(value)
	}
	if err := problem.CheckCount(len(elements), maxElements, "elements"); err != nil {
		return err
	}
	var problems problem.List
	for _, e := range elements {
		if err := take(e); err != nil {
			problems = append(problems, err)
		}
		if len(problems) == problem.Max {
			break
		}
	}
	return problems.Err()
}

// EmptyList returns the error of a list without elements.
func EmptyList(value string) error {
	return fmt.Errorf("is %s, which names nothing", message.Quote(value))
}

// Boolean reads true or false and nothing else, as csi-driver does; any other value leaves the standard one.
func Boolean(to *bool, value string, standard bool) error {
	*to = standard
	switch value {
	case "true":
		*to = true
	case "false":
		*to = false
	case "":
	default:
		return fmt.Errorf("is %s: true or false", message.Quote(value))
	}
	return nil
}

// SetDuration parses a duration. With orNone, one that is too short counts as absent.
func (d Dialect) SetDuration(to *time.Duration, value string, orNone bool) error {
	const longest = 10 * 365 * 24 * time.Hour
	parsed, err := time.ParseDuration(value)
	switch {
	case err != nil:
		return fmt.Errorf("is %s, which is not a duration such as 30m or 24h", message.Quote(value))
	case parsed < time.Second && orNone:
		return nil
	case parsed < time.Second:
		return fmt.Errorf("is %s: the shortest is 1s", message.Quote(value))
	case parsed > longest && !d.Lenient():
		return fmt.Errorf("is %s: the longest is 87600h, ten years", message.Quote(value))
	}
	*to = parsed
	return nil
}

// IsCanonical reports whether a number has neither sign nor leading zeros, which might mean octal. csi-driver
// takes them.
func (d Dialect) IsCanonical(number string) bool {
	return d.Lenient() || number == "0" || number[0] >= '1' && number[0] <= '9'
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > 127 }) < 0
}
