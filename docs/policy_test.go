package docs_test

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
	"github.com/mayfly-csi/mayfly/signer/controller/review"
)

// The fields are in the order of their types, with what kubectl explain says.
func TestPolicyFields(t *testing.T) {
	text, err := os.ReadFile("../manifests/controller/crd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(text, &crd); err != nil {
		t.Fatal(err)
	}
	want := fields("", reflect.TypeFor[v1alpha1.Spec](), crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"])
	document, err := os.ReadFile("controller.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(document), "\n| Field of `spec` | Meaning |\n|---|---|\n")
	table, _, _ := strings.Cut(after, "\n\n")
	if got := strings.Split(table, "\n"); !slices.Equal(got, want) {
		t.Errorf("controller.md has the fields\n%s\nand the CRD\n%s", table, strings.Join(want, "\n"))
	}
}

// fields are the rows of a type's fields.
func fields(path string, of reflect.Type, schema apiextensionsv1.JSONSchemaProps) (rows []string) {
	for i := range of.NumField() {
		name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
		property := schema.Properties[name]
		rows = append(rows, fmt.Sprintf("| `%s%s` | %s |", path, name, strings.Join(strings.Fields(property.Description), " ")))
		below, suffix := of.Field(i).Type, "."
		if below.Kind() == reflect.Slice {
			below, property, suffix = below.Elem(), *property.Items.Schema, "[]."
		}
		if below.Kind() == reflect.Struct && below != reflect.TypeFor[metav1.Duration]() {
			rows = append(rows, fields(path+name+suffix, below, property)...)
		}
	}
	return rows
}

func TestPolicyExample(t *testing.T) {
	compiler, err := policy.NewCompiler(policy.Policy{ClusterDomain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range blocks(t, "controller.md", "yaml") {
		objects, err := review.Read(strings.NewReader(block))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range objects.Policies {
			if err := compiler.Compile(p).Err; err != nil {
				t.Errorf("%s: %v", p.Name, err)
			}
		}
	}
}
