package policy

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	apiservercel "k8s.io/apiserver/pkg/cel"

	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

func newCompiler(t testing.TB) *Compiler {
	t.Helper()
	c, err := NewCompiler(Policy{ClusterDomain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestExpressions(t *testing.T) {
	pod := web()
	pod.Node = "node-a"
	v := asks(t, pod, spec.Prefix, "dns-names=WEB.shop,x.test", "common-name=WEB.shop", "organizations=Shop", "ip-sans=10.0.0.1", "spiffe=true",
		"duration=2h", "key-algorithm=RSA", "key-size=3072", "is-ca=true", "key-usages=server auth,cert sign")
	s, problems := parseSubject(v)
	if problems != nil {
		t.Fatal(problems)
	}
	c := newCompiler(t)
	for text, want := range map[string]string{
		`volume.dnsNames == ['web.shop', 'x.test']`:                                                                "",
		`volume.dnsNames.all(n, n.endsWith('.' + pod.namespace))`:                                                  "is not true",
		`volume.commonName == 'web.shop' && volume.organizations == ['Shop']`:                                      "",
		`volume.ips.all(i, cidr('10.0.0.0/8').containsIP(ip(i)))`:                                                  "",
		`volume.uris.exists(u, url(u).getHostname() == 'cluster.local')`:                                           "",
		`volume.duration <= duration('1h')`:                                                                        "is not true",
		`volume.duration == duration('2h')`:                                                                        "",
		`volume.issuer.name == 'ca' && volume.issuer.kind == 'Issuer' && volume.issuer.group == 'cert-manager.io'`: "",
		`volume.key.algorithm == 'RSA' && volume.key.size >= 3072`:                                                 "",
		`volume.isCA && sets.contains(volume.usages, ['cert sign'])`:                                               "",
		`pod.namespace == 'shop' && pod.name == 'web' && pod.serviceAccount == 'clerk' && pod.uid == '1'`:          "",
		`volume.dnsNames[7] == ''`:                                                                                 "fails: index out of bounds: 7",
		`'a'.repeat(3) == 'aaa'`:                                                                                   "is not understood",
		`volume.dnsNames.all(a, volume.dnsNames.all(b, '` + strings.Repeat("a", 1000) + `'.matches('(a+)+b') || true)) && [` + strings.Repeat(`1,`, 400) + `1].all(x, [` + strings.Repeat(`1,`, 400) + `1].all(y, [1,2,3].all(z, x + y + z > 0)))`: "fails: operation cancelled: actual cost limit exceeded",
		`volume.isCa`:                       "undefined field 'isCa'",
		`volume.annotations == {}`:          "",
		`volume.dialect == 'mayfly'`:        "",
		`volume.dialect == 'csi-driver'`:    "is not true",
		`pod.node == 'node-a'`:              "",
		`pod.node != 'node-a'`:              "is not true",
		`pod.annotations == {}`:             "undefined field 'annotations'",
		`pod.labels == {}`:                  "undefined field 'labels'",
		`volume.key.size`:                   "must be true or false, and is int",
		`volume.key.size == '1'`:            "found no matching overload",
		`authorizer.serviceAccount('','x')`: "undeclared reference to 'authorizer'",
		`true && `:                          "Syntax error",
	} {
		e, err := compileExpression(c.language, v1alpha1.Expression{Expression: text})
		if err == nil {
			err = against(e, variables(v, s))
		}
		if got := fmt.Sprint(err); (err == nil) != (want == "") || !strings.Contains(got, want) || strings.Contains(got, "\n") {
			t.Errorf("%s:\n got %v\nwant %s", brief(text), err, want)
		}
	}
}

// against is what the expression alone has against the variables.
func against(e expression, variables map[string]any) error {
	left := uint64(maxCost)
	return e.against(variables, &left)
}

// The expressions of all policies that one decision asks have one limit of cost: what is left bounds each next one.
func TestPoliciesThatCostTooMuch(t *testing.T) {
	v := asks(t, web(), spec.Prefix, "dns-names=web.shop.svc")
	v.DNSNames = slices.Repeat(v.DNSNames, 1000)
	const costly, cheap = `namespaces: [shop], expressions: [{expression: "!volume.dnsNames.all(n, n.endsWith('.svc'))"}]`,
		`namespaces: [shop], expressions: [{expression: "true"}]`
	for _, row := range []struct {
		specs []string
		want  string
	}{
		{[]string{cheap}, ""},
		{[]string{costly, cheap}, ""},
		{[]string{costly, costly, cheap}, "is not true"},
	} {
		err := newCompiler(t).Set(policies(t, row.specs...)).Check(v, identity())
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%d policies: %v, want %q", len(row.specs), err, row.want)
		}
	}
}

// An expression is not asked where those before it have cost too much.
func TestExpressionsThatCostTooMuch(t *testing.T) {
	costly, err := compileExpression(newCompiler(t).language, v1alpha1.Expression{Expression: "volume.dnsNames.all(a, volume.dnsNames.all(b, a != b + 'x'))"})
	if err != nil {
		t.Fatal(err)
	}
	var v spec.Spec
	v.DNSNames = []string{"a.test", "b.test", "c.test"}
	known, left, asked := variables(v, subject{}), uint64(maxCost), 0
	for ; left > 0; asked++ {
		if before := left; costly.against(known, &left) != nil && left > 0 || left >= before {
			t.Fatalf("it costs %d of %d", before-left, before)
		}
	}
	if err := costly.against(known, &left); asked < 10 || err == nil || !strings.HasSuffix(err.Error(), " is not asked: those before it cost too much") {
		t.Errorf("after %d: %v", asked, err)
	}
}

func TestTheMessageOfAnExpression(t *testing.T) {
	e, err := compileExpression(newCompiler(t).language, v1alpha1.Expression{Expression: "false", Message: "never\nmind"})
	if err != nil {
		t.Fatal(err)
	}
	if err := against(e, variables(spec.Spec{}, subject{})); err == nil || err.Error() != "never mind" {
		t.Error(err)
	}
}

// Empty lists are lists.
func TestExpressionsAboutLittle(t *testing.T) {
	e, err := compileExpression(newCompiler(t).language, v1alpha1.Expression{Expression: "size(volume.dnsNames + volume.ips + volume.uris + volume.organizations + volume.usages) == 0 && volume.commonName == ''"})
	if err != nil {
		t.Fatal(err)
	}
	if err := against(e, variables(spec.Spec{}, subject{})); err != nil {
		t.Error(err)
	}
}

// The document has the variables and their types.
func TestVariablesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../docs/controller.md")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	var add func(path string, d *apiservercel.DeclType)
	add = func(path string, d *apiservercel.DeclType) {
		for name, field := range d.Fields {
			if field.Type.IsObject() {
				add(path+name+".", field.Type)
				continue
			}
			want = append(want, fmt.Sprintf("| `%s%s` | %s |", path, name, field.Type.CelType()))
		}
	}
	volumeType, podType := declarations()
	add("volume.", volumeType)
	add("pod.", podType)
	slices.Sort(want)
	_, after, _ := strings.Cut(string(text), "\n| Variable | Type |\n|---|---|\n")
	table, _, _ := strings.Cut(after, "\n\n")
	if got := strings.Split(table, "\n"); !slices.Equal(got, want) {
		t.Errorf("controller.md has\n%s\nand there are\n%s", table, strings.Join(want, "\n"))
	}
}
