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

func TestRead(t *testing.T) {
	text := "# Ours.\n---\n" + fmt.Sprintf(policyText, "a", "x") + "---\n---\n" + fmt.Sprintf(policyText, "b", "w") + `---
{"apiVersion": "csi.mayfly.dev/v1alpha1", "kind": "CertificatePolicy", "metadata": {"name": "c"}, "spec": {"namespaces": ["z"]}}`
	got, err := Read(strings.NewReader(text))
	if err != nil || names(got.Policies) != "a:x b:w c:z" || len(got.Pods) > 0 || got.Others > 0 {
		t.Errorf("%+v (%v)", got, err)
	}
	for _, text := range []string{"", "---", "# None.\n"} {
		if got, err := Read(strings.NewReader(text)); err != nil || len(got.Policies)+len(got.Pods)+got.Others > 0 {
			t.Errorf("%q: %+v (%v)", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"metadata: {name: x}":                                                                   "document 1: it has no kind",
		"{kind: List, items: [{metadata: {}}]}":                                                 "document 1: items[0]: it has no kind",
		"{kind: List, items: 7}":                                                                "document 1: error unmarshaling JSON: ",
		"kind: Pod\nspec: {volumes: [{name: x, csi: [x]}]}":                                     "document 1: error unmarshaling JSON: ",
		"kind: Pod\nmetadata: {generateName: x}":                                                "document 1: metadata.name is missing",
		"kind: Deployment\nspec: {}":                                                            "document 1: metadata.name is missing",
		"kind: CertificatePolicies\napiVersion: csi.mayfly.dev/v1alpha1":                        `document 1: it is a "CertificatePolicies" of "csi.mayfly.dev/v1alpha1", and must be`,
		"apiVersion: csi.mayfly.dev/v1alpha1\nkind: CertificatePolicy\nspec: {namespaces: [x]}": "document 1: metadata.name is missing",
		fmt.Sprintf(policyText, "a", "x") + "---\n- x":                                          "document 2: error unmarshaling JSON: ",
		fmt.Sprintf(policyText, "a", "x") + "allow: {}":                                         "document 1: error unmarshaling JSON: while decoding JSON: json: unknown field \"allow\"",
		strings.Replace(fmt.Sprintf(policyText, "a", "x"), "v1alpha1", "v1", 1):                 `document 1: it is a "CertificatePolicy" of "csi.mayfly.dev/v1", and must be`,
	} {
		if _, err := Read(strings.NewReader(text)); err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
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
		all, err := Read(strings.NewReader(text.String()))
		if err != nil {
			t.Fatal(err)
		}
		return all.Policies
	}
	today := read("a:x", "b:w")
	if got := names(Merge(today, read("b:z", "c:u", "c:v"))); got != "a:x b:z c:v" {
		t.Error(got)
	}
	if names(today) != "a:x b:w" {
		t.Error("the policies of today have changed")
	}
}

// A workload stands for a pod of its template, with a name as its pods have it.
func TestReadPods(t *testing.T) {
	const template = `{metadata: {name: ignored, labels: {a: b}}, spec: {serviceAccountName: clerk, volumes: [{name: tls}]}}`
	for text, want := range map[string]string{
		"kind: Pod, metadata: {namespace: shop, name: web}, spec: {serviceAccountName: clerk, volumes: [{name: tls}]}": "shop/web clerk [tls]",
		"kind: Pod, metadata: {name: web}": "/web  []",
		"kind: Deployment, metadata: {namespace: shop, name: web}, spec: {template: " + template + "}":    "shop/web-xxxxx clerk [tls]",
		"kind: DaemonSet, metadata: {name: web}, spec: {template: " + template + "}":                      "/web-xxxxx clerk [tls]",
		"kind: ReplicaSet, metadata: {name: web}, spec: {template: " + template + "}":                     "/web-xxxxx clerk [tls]",
		"kind: Job, metadata: {name: web}, spec: {template: " + template + "}":                            "/web-xxxxx clerk [tls]",
		"kind: StatefulSet, metadata: {name: web}, spec: {template: " + template + "}":                    "/web-0 clerk [tls]",
		"kind: CronJob, metadata: {name: web}, spec: {jobTemplate: {spec: {template: " + template + "}}}": "/web-xxxxx clerk [tls]",
		"kind: List, items: [{kind: Pod, metadata: {name: web}}]":                                         "/web  []",
		"kind: List, items: [{kind: Service, metadata: {name: web}}]":                                     "",
		"kind: Service, metadata: {name: web}":                                                            "",
	} {
		all, err := Read(strings.NewReader("{apiVersion: v1, " + text + "}"))
		if err != nil || len(all.Pods)+all.Others != 1 || len(all.Policies) > 0 {
			t.Errorf("%s: %+v (%v)", text, all, err)
			continue
		}
		var got string
		for _, p := range all.Pods {
			var volumes []string
			for _, v := range p.Spec.Volumes {
				volumes = append(volumes, v.Name)
			}
			got = fmt.Sprint(p.Namespace, "/", p.Name, " ", p.Spec.ServiceAccountName, " ", volumes)
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestAdd(t *testing.T) {
	var all Objects
	for _, text := range []string{fmt.Sprintf(policyText, "a", "x"), fmt.Sprintf(policyText, "a", "z") + "---\n{kind: Pod, metadata: {name: p}}\n---\n{kind: Service}"} {
		more, err := Read(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		all.Add(more)
	}
	if names(all.Policies) != "a:z" || len(all.Pods) != 1 || all.Others != 1 {
		t.Errorf("%+v", all)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(fmt.Sprintf(policyText, "a", "x") + "---\n" + fmt.Sprintf(policyText, "b", "w"))
	f.Add("kind: [x\n---\n{")
	f.Fuzz(func(t *testing.T, text string) {
		objects, err := Read(strings.NewReader(text))
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Error(err)
		}
		for _, p := range objects.Policies {
			again, err := yaml.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Read(strings.NewReader(string(again))); err != nil {
				t.Errorf("%q: %v", again, err)
			}
		}
	})
}
