// Package faults holds the messages of docs/troubleshooting.md to the runs that make them: a row that no run makes
// fails, and so does a fault that the document does not have.
package faults

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Messages returns the messages that a run makes, by document, a path to troubleshooting.md: the first cells of the
// tables that follow the comment <!-- made by RUN -->, up to the next comment.
func Messages(document, run string) ([]string, error) {
	text, err := os.ReadFile(document) // #nosec G304 -- A test names it.
	if err != nil {
		return nil, fmt.Errorf("read the messages of faults: %w", err)
	}
	var messages []string
	for _, part := range strings.Split(string(text), "<!-- made by ")[1:] {
		by, tables, _ := strings.Cut(part, " -->")
		if by != run {
			continue
		}
		tables, _, _ = strings.Cut(tables, "<!--")
		for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ").FindAllStringSubmatch(tables, -1) {
			messages = append(messages, strings.ReplaceAll(row[1], `\|`, "|"))
		}
	}
	return messages, nil
}

// Advice returns what a document, a path to troubleshooting.md, says to do about a reason.
func Advice(document, reason string) (string, error) {
	text, err := os.ReadFile(document) // #nosec G304 -- A test names it.
	if err != nil {
		return "", fmt.Errorf("read what to do: %w", err)
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.+) \\| (.+) \\|$").FindAllStringSubmatch(string(text), -1) {
		if Match(strings.ReplaceAll(row[1], `\|`, "|"), reason) {
			return row[3], nil
		}
	}
	return "", fmt.Errorf("%s has no row for: %s", document, reason)
}

// Hold demands that the document has the messages of a run's faults, and no others of that run.
func Hold(t testing.TB, document, run string, made []string) {
	t.Helper()
	documented, err := Messages(document, run)
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range documented {
		if !slices.Contains(made, message) {
			t.Errorf("%s has a message that %s does not make: %s", document, run, message)
		}
	}
	for _, message := range made {
		if !slices.Contains(documented, message) {
			t.Errorf("%s lacks the message of %s: %s", document, run, message)
		}
	}
}

// before is what the kubelet and the node plugin write before the reason, after what the node plugin writes after it.
var (
	before = regexp.MustCompile(
		`^(MountVolume\.SetUp failed for volume "[^"]+" : |rpc error: code = \w+ desc = |volume [\w-]+: )`)
	after = regexp.MustCompile(` \((tried once|tried \d+ times); the next try is at [^)]+\)$`)
)

// Reason returns an event's message without what stands around the reason: whose call failed, and when the next try is.
func Reason(text string) string {
	for before.MatchString(text) {
		text = before.ReplaceAllString(text, "")
	}
	return after.ReplaceAllString(text, "")
}

// Match reports whether a reason is a message of the document word for word, but for what … stands for there.
func Match(message, reason string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(message), "…", ".+")
	return regexp.MustCompile("(?s)^" + pattern + "$").MatchString(reason)
}
