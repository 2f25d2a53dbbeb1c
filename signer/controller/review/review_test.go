package review

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
)

const policyText = "apiVersion: csi.mayfly.dev/v1alpha1\nkind: CertificatePolicy\nmetadata: {name: %s}\nspec: {namespaces: [%s]}\n"

func TestReadPolicies(t *testing.T) {
	text := "# Ours.\n---\n" + fmt.Sprintf(policyText, "a", "x") + "---\n---\n" + fmt.Sprintf(policyText, "b", "w") + `---
{"apiVersion": "csi.mayfly.dev/v1alpha1", "kind": "CertificatePolicy", "metadata": {"name": "c"}, "spec": {"namespaces": ["z"]}}`
	got, err := ReadPolicies(strings.NewReader(text))
	if err != nil || names(got) != "a:x b:w c:z" {
		t.Errorf("%s (%v)", names(got), err)
	}
	for text, want := range map[string]string{
		"":    "there is no CertificatePolicy",
		"---": "there is no CertificatePolicy",
		"apiVersion: csi.mayfly.dev/v1alpha1\nkind: CertificatePolicy\nspec: {namespaces: [x]}": "document 1: metadata.name is missing",
		fmt.Sprintf(policyText, "a", "x") + "---\n- x":                                          "document 2: error unmarshaling JSON: ",
		fmt.Sprintf(policyText, "a", "x") + "allow: {}":                                         "document 1: error unmarshaling JSON: while decoding JSON: json: unknown field \"allow\"",
		strings.Replace(fmt.Sprintf(policyText, "a", "x"), "v1alpha1", "v1", 1):                 `document 1: it is a "CertificatePolicy" of "csi.mayfly.dev/v1", and must be`,
	} {
		if _, err := ReadPolicies(strings.NewReader(text)); err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// names are the policies, with their namespaces.
func names(policies []v1alpha1.CertificatePolicy) string {
	var all []string
	for _, p := range policies {
		all = append(all, p.Name+":"+strings.Join(p.Spec.Namespaces, "+"))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestMerge(t *testing.T) {
	read := func(policies ...string) []v1alpha1.CertificatePolicy {
		var text strings.Builder
		for _, p := range policies {
			name, namespace, _ := strings.Cut(p, ":")
			text.WriteString(fmt.Sprintf(policyText, name, namespace) + "---\n")
		}
		all, err := ReadPolicies(strings.NewReader(text.String()))
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	today := read("a:x", "b:w")
	if got := names(Merge(today, read("b:z", "c:u", "c:v"))); got != "a:x b:z c:v" {
		t.Error(got)
	}
	if names(today) != "a:x b:w" {
		t.Error("the policies of today have changed")
	}
}

func FuzzReadPolicies(f *testing.F) {
	f.Add(fmt.Sprintf(policyText, "a", "x") + "---\n" + fmt.Sprintf(policyText, "b", "w"))
	f.Add("kind: [x\n---\n{")
	f.Fuzz(func(t *testing.T, text string) {
		policies, err := ReadPolicies(strings.NewReader(text))
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Error(err)
		}
		for _, p := range policies {
			again, err := yaml.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ReadPolicies(strings.NewReader(string(again))); err != nil {
				t.Errorf("%q: %v", again, err)
			}
		}
	})
}
