package volume

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/agext/levenshtein"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/problem"
)

// setAnnotations takes the attributes that the dialect does not know. Those of other groups become annotations of the
// request, where it has these. One whose group and name are both much like ours is a mistake, which a dialect may
// overlook, and so is one of another dialect: the attribute that it means is not checked. The kubelet's keys are
// skipped: no pod sets them.
func (p *parser) setAnnotations(attributes map[string]string) (problems problem.List) {
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		if p.dialect.knows(key) || strings.HasPrefix(key, kubeletPrefix) {
			continue
		}
		if len(problems) == problem.Max {
			return problems
		}
		problems = append(problems, problem.Of(p.setUnknown(key, attributes[key]))...)
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
		if len(p.Overlooked) < problem.Max {
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
		return problem.New(message.Quote(key), format, wrong[0])
	}
	if !utf8.ValidString(value) {
		return problem.New(message.Quote(key), format, "its value is not valid UTF-8")
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
	case len(key) > problem.LongestWord:
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
