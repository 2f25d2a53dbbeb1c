package volume

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/agext/levenshtein"
	"k8s.io/apimachinery/pkg/util/validation"
)

// others are the attributes that no row has. Those of other groups become annotations of the request, as the old driver has it; one of a group
// that is much like ours, with a name that is much like one of ours, is a mistake. The kubelet's own keys are not the pod's to set, so they are not
// looked at.
func (p *parser) others(attributes map[string]string) (problems Problems) {
	if problems := tooMuch(attributes); problems != nil {
		return problems
	}
	known := keys()
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		switch {
		case slices.Contains(known, key), strings.HasPrefix(key, kubeletPrefix):
		case !foreign(key, known):
			problems = append(problems, problem(quote(key), "is not a known attribute%s", suggestion(key, "%s", known)))
		case len(validation.IsQualifiedName(strings.ToLower(key))) > 0:
			problems = append(problems, problem(quote(key), "can't be an annotation of the request: %s", validation.IsQualifiedName(strings.ToLower(key))[0]))
		case !utf8.ValidString(attributes[key]):
			problems = append(problems, problem(quote(key), "can't be an annotation of the request: its value is not valid UTF-8"))
		default:
			if p.Annotations == nil {
				p.Annotations = map[string]string{}
			}
			p.Annotations[key] = attributes[key]
		}
	}
	return problems
}

// tooMuch bounds what a pod may make the driver look at, keep in a record and ask of the API server, which takes no more annotations (k8s.io/apimachinery
// pkg/api/validation, TotalAnnotationSizeLimitB).
func tooMuch(attributes map[string]string) Problems {
	const most, largest = 256, 256 << 10
	n, size := 0, 0
	for key, value := range attributes {
		if !strings.HasPrefix(key, kubeletPrefix) {
			n++
			size += len(key) + len(value)
		}
	}
	switch {
	case n > most:
		return Problems{problem("volumeAttributes", "are %d: at most %d", n, most)}
	case size > largest:
		return Problems{problem("volumeAttributes", "have %d bytes: at most %d", size, largest)}
	}
	return nil
}

// foreign reports whether a key is of another group, and not one of ours misspelt.
func foreign(key string, known []string) bool {
	const alike = 3 // Letters that are wrong.
	group, name, qualified := strings.Cut(key, "/")
	switch {
	case !qualified || group == strings.TrimSuffix(Prefix, "/") || group == strings.TrimSuffix(OldPrefix, "/"):
		return false
	case len(key) > longestKey:
		return true
	}
	_, ours, _ := strings.Cut(nearest(key, known), "/")
	for _, prefix := range []string{Prefix, OldPrefix} {
		if levenshtein.Distance(group+"/", prefix, nil) <= alike && levenshtein.Distance(name, ours, nil) <= alike {
			return false
		}
	}
	return true
}

// longestKey is that of a qualified name (k8s.io/apimachinery pkg/util/validation): a DNS subdomain, a slash and a name.
const longestKey = 253 + 1 + 63

// keys are all attributes with their prefixes.
func keys() (keys []string) {
	for _, a := range Attributes() {
		if !a.OnlyOld {
			keys = append(keys, Prefix+a.Name)
		}
		if a.Old {
			keys = append(keys, OldPrefix+a.Name)
		}
	}
	return keys
}

// nearest is the word most like the given one: first by what follows the prefix, then as a whole.
func nearest(word string, words []string) string {
	distance := func(candidate string) int {
		if strings.HasPrefix(base(candidate), base(word)) {
			return levenshtein.Distance(word[:min(len(word), 64)], candidate, nil)
		}
		return 100*levenshtein.Distance(base(word), base(candidate), nil) + levenshtein.Distance(word[:min(len(word), 64)], candidate, nil)
	}
	return slices.MinFunc(words, func(a, b string) int { return distance(a) - distance(b) })
}

// suggestion is the word that was meant, if one is so much like it.
func suggestion(word, format string, words []string) string {
	near := nearest(word, words)
	given, meant := base(word), base(near)
	if 2*levenshtein.Distance(given, meant, nil) > len(meant) && (given == "" || !strings.HasPrefix(meant, given)) {
		return ""
	}
	return ": did you mean " + fmt.Sprintf(format, near) + "?"
}

// base is what follows the last slash; not more of it than any attribute has, for a distance costs the product of the lengths.
func base(key string) string {
	key = key[strings.LastIndexByte(key, '/')+1:]
	return key[:min(len(key), 64)]
}
