package volume

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/agext/levenshtein"

	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// checkUnknown returns the problems of the attributes that nobody knows. Those of other groups are annotations of the
// request, where the dialect has these. One whose group and name are both much like ours is a mistake, which a dialect
// may overlook, and so is one of another dialect: the attribute that it means is not checked.
func (p *parser) checkUnknown() (problems problem.List) {
	for _, key := range p.certificate.Others {
		if len(problems) == problem.Max {
			return problems
		}
		if !p.Knows(key) {
			problems = append(problems, problem.Of(p.checkOther(key))...)
		}
	}
	return problems
}

// checkOther returns what is wrong with one attribute that the dialect does not know.
func (p *parser) checkOther(key string) error {
	meant, use := p.Translate(key)
	if meant != "" {
		p.Mistake(meant)
	} else {
		meant, use = p.certificate.Translate(key)
	}
	switch {
	case use != "":
		return problem.New(key, "is not an attribute of this driver: use %s", use)
	case meant != "":
		return p.unknown(key)
	case p.Dialect.Annotates(key) && !isMisspelt(key):
		return nil
	case overlooks(p.Dialect) && !strings.HasPrefix(key, spec.Prefix):
		if len(p.Overlooked) < problem.Max {
			p.Overlooked = append(p.Overlooked, p.unknown(key).Error())
		}
		return nil
	}
	return p.unknown(key)
}

// unknown returns the error of a key that the dialect does not know.
func (p *parser) unknown(key string) error {
	known := append(p.certificate.Keys(), p.Keys()...)
	if p.Dialect == spec.CSIDriverSPIFFE {
		return problem.New(message.Quote(key), "is not a known attribute: %s knows %s",
			spec.SPIFFEDriver, strings.Join(known, ", "))
	}
	return problem.New(message.Quote(key), "is not a known attribute%s", problem.Suggestion(key, "%s", known))
}

// isMisspelt reports whether a key of another group is a misspelt attribute: both its group and its name are much like
// ours.
func isMisspelt(key string) bool {
	group, name, _ := strings.Cut(key, "/")
	if len(key) > problem.LongestWord || !alike(group+"/", spec.Prefix) && !alike(group+"/", spec.OldPrefix) {
		return false
	}
	return slices.ContainsFunc(Attributes(), func(a spec.Attribute) bool { return alike(name, a.Name) })
}

// alike reports whether two words differ in at most three letters. Of lengths that differ by more no distance is
// computed; the library's own bound, MaxCost, takes "example.org" for three letters from "csi.mayfly.dev".
func alike(a, b string) bool {
	const most = 3
	difference := utf8.RuneCountInString(a) - utf8.RuneCountInString(b)
	return max(difference, -difference) <= most && levenshtein.Distance(a, b, nil) <= most
}
