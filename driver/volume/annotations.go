package volume

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/agext/levenshtein"
	"k8s.io/apimachinery/pkg/util/validation"
)

// setAnnotations takes the attributes that no row has. Those of other groups become annotations of the request, as
// the old driver has it. One whose group and name are both much like ours is a mistake. The kubelet's keys are
// skipped: no pod sets them.
func (p *parser) setAnnotations(attributes map[string]string) (problems Problems) {
	known := keys()
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		switch {
		case len(problems) == maxProblems:
			return problems
		case slices.Contains(known, key), strings.HasPrefix(key, kubeletPrefix):
		case !isForeign(key):
			problems = append(problems, problem(quote(key), "is not a known attribute%s", suggestion(key, "%s", known)))
		case len(validation.IsQualifiedName(strings.ToLower(key))) > 0:
			reason := validation.IsQualifiedName(strings.ToLower(key))[0]
			problems = append(problems, problem(quote(key), "can't be an annotation of the request: %s", reason))
		case !utf8.ValidString(attributes[key]):
			problems = append(problems, problem(quote(key),
				"can't be an annotation of the request: its value is not valid UTF-8"))
		default:
			if p.Annotations == nil {
				p.Annotations = map[string]string{}
			}
			p.Annotations[key] = attributes[key]
		}
	}
	return problems
}

// isForeign reports whether a key is of another group, and is not a misspelt attribute: both its group and its name
// would be much like ours.
func isForeign(key string) bool {
	group, name, qualified := strings.Cut(key, "/")
	switch {
	case !qualified || group+"/" == Prefix || group+"/" == OldPrefix:
		return false
	case len(key) > longestKey:
		return true
	}
	return !alike(group+"/", Prefix) && !alike(group+"/", OldPrefix) ||
		!slices.ContainsFunc(table(), func(a Attribute) bool { return alike(name, a.Name) })
}

// alike reports whether two words differ in at most three letters. Of lengths that differ by more no distance is
// computed; the library's own bound, MaxCost, takes "example.org" for three letters from "csi.mayfly.dev".
func alike(a, b string) bool {
	const most = 3
	difference := utf8.RuneCountInString(a) - utf8.RuneCountInString(b)
	return max(difference, -difference) <= most && levenshtein.Distance(a, b, nil) <= most
}

// longestKey is the length of the longest qualified name: a DNS subdomain, a slash and a name (k8s.io/apimachinery
// pkg/util/validation).
const longestKey = 253 + 1 + 63

// keys returns all attributes with their prefixes.
var keys = sync.OnceValue(func() (keys []string) {
	for _, a := range table() {
		if !a.OnlyOld {
			keys = append(keys, Prefix+a.Name)
		}
		if a.Old {
			keys = append(keys, OldPrefix+a.Name)
		}
	}
	return keys
})

// nearest returns the word most like the given one: first by what follows the prefix, then as a whole.
func nearest(word string, words []string) (best string) {
	least := math.MaxInt
	for _, candidate := range words {
		distance := levenshtein.Distance(word[:min(len(word), longestBase)], candidate, nil)
		if !strings.HasPrefix(baseName(candidate), baseName(word)) {
			distance += 100 * levenshtein.Distance(baseName(word), baseName(candidate), nil)
		}
		if distance < least {
			best, least = candidate, distance
		}
	}
	return best
}

// suggestion returns "did you mean" with the nearest word, or nothing if none is near enough.
func suggestion(word, format string, words []string) string {
	if len(word) > longestKey {
		return ""
	}
	near := nearest(word, words)
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
