package volume

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/agext/levenshtein"
	"k8s.io/apimachinery/pkg/util/validation"
)

// setAnnotations takes the attributes that the dialect does not know. Those of other groups become annotations of the
// request, where it has these. One whose group and name are both much like ours is a mistake, which a dialect may
// overlook, and so is one of another dialect: the attribute that it means is not checked. The kubelet's keys are
// skipped: no pod sets them.
func (p *parser) setAnnotations(attributes map[string]string) (problems Problems) {
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		if p.dialect.knows(key) || strings.HasPrefix(key, kubeletPrefix) {
			continue
		}
		if len(problems) == maxProblems {
			return problems
		}
		problems = append(problems, problemsOf(p.setUnknown(key, attributes[key]))...)
	}
	return problems
}

// setUnknown takes one attribute that the dialect does not know.
func (p *parser) setUnknown(key, value string) error {
	meant, _ := p.dialect.translate(key)
	switch {
	case meant != nil:
		p.inputs[meant.Name] = input{wrong: true}
		return p.dialect.unknown(key)
	case p.dialect.annotations && isForeign(key):
		if err := checkAnnotation(key, value); err != nil {
			return err
		}
		p.annotate(key, value)
		return nil
	case p.dialect.overlooks && !strings.HasPrefix(key, Prefix):
		if len(p.Overlooked) < maxProblems {
			p.Overlooked = append(p.Overlooked, p.dialect.unknown(key).Error())
		}
		return nil
	}
	return p.dialect.unknown(key)
}

// checkAnnotation checks what the API server would refuse.
func checkAnnotation(key, value string) error {
	const format = "can't be an annotation of the request: %s"
	if wrong := validation.IsQualifiedName(strings.ToLower(key)); len(wrong) > 0 {
		return problem(quote(key), format, wrong[0])
	}
	if !utf8.ValidString(value) {
		return problem(quote(key), format, "its value is not valid UTF-8")
	}
	return nil
}

// annotate gives the request an annotation.
func (p *parser) annotate(key, value string) {
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	p.Annotations[key] = value
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

// nearest returns the word most like the given one: first by what follows the prefix, then as a whole.
func nearest(word string, words []string) (best string) {
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
