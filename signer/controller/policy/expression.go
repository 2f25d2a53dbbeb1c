package policy

import (
	"fmt"
	"maps"
	"net/url"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"k8s.io/apimachinery/pkg/util/version"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// An expression must be true of a volume.
type expression struct {
	text, message string
	program       cel.Program
}

// expressionsMax is how many expressions a policy may have.
const expressionsMax = 10

// maxCost is what all expressions that one decision asks may cost, in CEL's units: some milliseconds. Kubernetes' own
// policies may take a hundred times as much for each (k8s.io/apiserver pkg/apis/cel, PerCallLimit), and hold up one
// request; a pod with as many names as there may be would hold up those of all others here.
const maxCost = 10_000

// newEnvironment makes the language of expressions: CEL with the functions that Kubernetes' own policies have.
func newEnvironment() (*cel.Env, error) {
	volumeType, podType := declarations()
	base := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
	set, err := base.Extend(environment.VersionedOptions{
		IntroducedVersion: version.MajorMinor(1, 0),
		EnvOptions: []cel.EnvOption{
			cel.Variable("volume", volumeType.CelType()), cel.Variable("pod", podType.CelType()),
		},
		DeclTypes: []*apiservercel.DeclType{volumeType, podType},
	}, environment.StrictCostOpt)
	if err != nil {
		return nil, fmt.Errorf("make the language of expressions: %w", err)
	}
	return set.Env(environment.NewExpressions)
}

// declarations returns the types of the variables.
func declarations() (volumeType, podType *apiservercel.DeclType) {
	const many = 1000
	text := apiservercel.StringType
	texts, number := apiservercel.NewListType(text, many), apiservercel.IntType
	object := func(name string, fields map[string]*apiservercel.DeclType) *apiservercel.DeclType {
		all := map[string]*apiservercel.DeclField{}
		for field, kind := range fields {
			all[field] = apiservercel.NewDeclField(field, kind, true, nil, nil)
		}
		return apiservercel.NewObjectType("mayfly."+name, all)
	}
	volumeType = object("Volume", map[string]*apiservercel.DeclType{
		"dnsNames": texts, "ips": texts, "uris": texts, "commonName": text, "organizations": texts,
		"usages": texts, "duration": apiservercel.DurationType, "isCA": apiservercel.BoolType, "dialect": text,
		"annotations": apiservercel.NewMapType(text, text, many),
		"issuer":      object("Issuer", map[string]*apiservercel.DeclType{"name": text, "kind": text, "group": text}),
		"key":         object("Key", map[string]*apiservercel.DeclType{"algorithm": text, "size": number}),
	})
	podType = object("Pod", map[string]*apiservercel.DeclType{
		"namespace": text, "name": text, "serviceAccount": text, "uid": text, "node": text,
	})
	return volumeType, podType
}

// compileExpression checks an expression and makes it ready.
func compileExpression(in *cel.Env, e v1alpha1.Expression) (expression, error) {
	ast, issues := in.Compile(e.Expression)
	if issues.Err() != nil {
		return expression{}, fmt.Errorf("%q is not understood: %s", brief(e.Expression), oneLine(issues.String()))
	}
	if !ast.OutputType().IsExactType(cel.BoolType) {
		return expression{}, fmt.Errorf("%q must be true or false, and is %s", brief(e.Expression), ast.OutputType())
	}
	program, err := in.Program(ast, cel.CostLimit(maxCost))
	if err != nil {
		return expression{}, fmt.Errorf("%q can't be run: %w", brief(e.Expression), err)
	}
	return expression{e.Expression, e.Message, program}, nil
}

// against returns what the expression has against the variables. left is what it may cost, and what it leaves of that.
func (e expression) against(variables map[string]any, left *uint64) error {
	if *left == 0 {
		return fmt.Errorf("expression %q is not asked: those before it cost too much", brief(e.text))
	}
	result, details, err := e.program.Eval(variables)
	if cost := details.ActualCost(); cost != nil {
		*left -= min(*left, *cost)
	} else { // It was cancelled.
		*left = 0
	}
	switch {
	case err != nil:
		return fmt.Errorf("expression %q fails: %s", brief(e.text), oneLine(err.Error()))
	case result == types.True:
		return nil
	case e.message != "":
		return fmt.Errorf("%s", oneLine(e.message))
	}
	return fmt.Errorf("expression %q is not true", brief(e.text))
}

// variables returns what expressions know. DNS names have no case (RFC 4343): they are in small letters, and so are the
// common name, which many a program takes for one, and the hosts of URIs (RFC 3986, section 6.2.2.1).
func variables(v spec.Spec, s subject) map[string]any {
	return map[string]any{
		"volume": map[string]any{
			"dnsNames": texts(v.DNSNames, lower), "ips": stringsOf(v.IPs), "uris": texts(v.URIs, smallHost),
			"commonName": strings.ToLower(s.commonName), "organizations": texts(s.organizations, unchanged),
			"usages":   texts(v.Usages, func(u signer.Usage) string { return string(u) }),
			"duration": v.Duration, "isCA": v.IsCA, "dialect": string(v.Dialect),
			"annotations": maps.Collect(maps.All(v.Annotations)),
			"issuer":      map[string]any{"name": v.Issuer.Name, "kind": v.Issuer.Kind, "group": v.Issuer.Group},
			"key":         map[string]any{"algorithm": string(v.Key.Algorithm), "size": v.Key.Size},
		},
		"pod": map[string]any{
			"namespace": v.Pod.Namespace, "name": v.Pod.Name, "serviceAccount": v.Pod.ServiceAccount, "uid": v.Pod.UID,
			"node": v.Pod.Node,
		},
	}
}

// smallHost returns a URI with its host in small letters; its scheme is so already (net/url).
func smallHost(uri *url.URL) string {
	small := *uri
	small.Host = strings.ToLower(uri.Host)
	return small.String()
}

func unchanged(text string) string { return text }

// texts returns the texts of a list. It is never nil: an empty list is a list.
func texts[T any](all []T, text func(T) string) []string {
	found := make([]string, len(all))
	for i, one := range all {
		found[i] = text(one)
	}
	return found
}

func stringsOf[T fmt.Stringer](all []T) []string { return texts(all, T.String) }

// oneLine makes what another package says fit for a message.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// brief returns the begin of a long text.
func brief(text string) string { return message.Cut(text, 128) }
