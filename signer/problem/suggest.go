package problem

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/agext/levenshtein"
)

// LongestWord is the length of the longest qualified name: a DNS subdomain, a slash and a name (k8s.io/apimachinery
// pkg/util/validation). For longer words there is no suggestion.
const LongestWord = 253 + 1 + 63

// Nearest returns the word most like the given one: first by what follows the prefix, then as a whole.
func Nearest(word string, words []string) (best string) {
	least := math.MaxInt
	for _, candidate := range words {
		distance := 0
		if given, meant := baseName(word), baseName(candidate); !strings.HasPrefix(meant, given) {
			difference := utf8.RuneCountInString(given) - utf8.RuneCountInString(meant)
			if 100*max(difference, -difference) > least { // The distance is no less.
				continue
			}
			distance = 100 * levenshtein.Distance(given, meant, nil)
		}
		if distance > least {
			continue
		}
		distance += levenshtein.Distance(word[:min(len(word), longestBase)], candidate, nil)
		if distance < least {
			best, least = candidate, distance
		}
	}
	return best
}

// Suggestion returns "did you mean" with the nearest word, or nothing if none is near enough.
func Suggestion(word, format string, words []string) string {
	if len(word) > LongestWord {
		return ""
	}
	near := Nearest(word, words)
	given, meant := baseName(word), baseName(near)
	if 2*levenshtein.Distance(given, meant, nil) > len(meant) && (given == "" || !strings.HasPrefix(meant, given)) {
		return ""
	}
	return ": did you mean " + fmt.Sprintf(format, near) + "?"
}

// longestBase is more than the length of any attribute's name. It bounds the cost of a distance, which is the
// product of two lengths.
const longestBase = 64

// baseName returns what follows the last slash, at most longestBase bytes of it.
func baseName(key string) string {
	key = key[strings.LastIndexByte(key, '/')+1:]
	return key[:min(len(key), longestBase)]
}
