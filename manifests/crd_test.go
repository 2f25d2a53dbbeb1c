package manifests_test

import (
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/client-go/util/jsonpath"
)

// An API server takes the CRD: its schema, the rules in CEL and the columns. What the controller says of a policy is a
// subresource, so that who may write it can't write the policy.
func TestAnAPIServerTakesTheCRD(t *testing.T) {
	crd := the[*apiextensionsv1.CustomResourceDefinition](t, objects(t, controller))
	if s := crd.Spec.Versions[0].Subresources; s == nil || s.Status == nil {
		t.Error("the status is no subresource")
	}
	for _, column := range crd.Spec.Versions[0].AdditionalPrinterColumns {
		if err := jsonpath.New(column.Name).Parse("{" + column.JSONPath + "}"); err != nil { // The API server passes over such a column.
			t.Errorf("column %s: %v", column.Name, err)
		}
	}
	apiextensionsv1.SetDefaults_CustomResourceDefinition(crd)
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&crd.Spec)
	var internal apiextensions.CustomResourceDefinition
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(crd, &internal, nil); err != nil {
		t.Fatal(err)
	}
	internal.Status.StoredVersions = []string{crd.Spec.Versions[0].Name}
	for _, err := range validation.ValidateCustomResourceDefinition(t.Context(), &internal) {
		t.Error(err)
	}
}
