package spec

import (
	"slices"
	"strings"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/problem"
)

// setAnnotations takes the attributes of other groups, which become annotations of the request where the dialect has
// these. One of another dialect is a mistake of the attribute that it means. The kubelet's keys are skipped: no pod
// sets them.
func (p *parser) setAnnotations(attributes map[string]string) (problems problem.List) {
	for key := range attributes {
		if !p.Knows(key) && !strings.HasPrefix(key, kubeletPrefix) {
			p.Others = append(p.Others, key)
		}
	}
	slices.Sort(p.Others)
	for _, key := range p.Others {
		if meant, _ := p.Translate(key); meant != "" {
			p.Mistake(meant)
		}
		if !p.Dialect.Annotates(key) || len(problems) == problem.Max {
			continue
		}
		if err := checkAnnotation(key, attributes[key]); err != nil {
			problems = append(problems, err)
			continue
		}
		p.annotate(key, attributes[key])
	}
	return problems
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
