// Package admission checks that the API server has the admission policies on which the controller relies, as the
// manifests have them. Where it has not, others may decide on what node plugins ask: cert-manager's own approver
// approves all of it.
package admission

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Parse reads policies and their bindings from YAML.
func Parse(text string) (all []client.Object, err error) {
	scheme := runtime.NewScheme()
	if err := admissionv1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	for documents := yaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text))); ; {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read admission policies: %w", err)
		}
		decoded, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("read admission policies: %w", err)
		}
		object, ok := decoded.(client.Object)
		if !ok {
			return nil, fmt.Errorf("read admission policies: %T is no object", decoded)
		}
		all = append(all, object)
	}
}

// Check returns a line for each of the objects that the API server has not, or has otherwise. Its error is that they
// can't be read.
func Check(ctx context.Context, api client.Reader, wanted []client.Object) (problems []string, err error) {
	for _, want := range wanted {
		title := want.GetObjectKind().GroupVersionKind().Kind + " " + want.GetName()
		found, ok := want.DeepCopyObject().(client.Object)
		if !ok {
			return nil, fmt.Errorf("read %s: %T is no object", title, want)
		}
		switch err := api.Get(ctx, client.ObjectKeyFromObject(want), found); {
		case apierrors.IsNotFound(err):
			problems = append(problems, title+" is missing")
		case err != nil:
			return nil, fmt.Errorf("read %s: %w", title, err)
		case !equality.Semantic.DeepEqual(spec(want), spec(found)):
			problems = append(problems, title+" is not as the manifests have it")
		}
	}
	return problems, nil
}

// spec returns what an object says; nil if it is neither a policy nor a binding.
func spec(object client.Object) any {
	switch o := object.(type) {
	case *admissionv1.ValidatingAdmissionPolicy:
		return defaulted(o.DeepCopy().Spec)
	case *admissionv1.ValidatingAdmissionPolicyBinding:
		return o.Spec
	}
	return nil
}

// defaulted sets what the API server sets where nothing is given (kubernetes
// pkg/apis/admissionregistration/v1/defaults.go).
func defaulted(spec admissionv1.ValidatingAdmissionPolicySpec) admissionv1.ValidatingAdmissionPolicySpec {
	fail, equivalent, everywhere := admissionv1.Fail, admissionv1.Equivalent, admissionv1.AllScopes
	set(&spec.FailurePolicy, &fail)
	set(&spec.MatchConstraints, &admissionv1.MatchResources{})
	m := spec.MatchConstraints
	set(&m.MatchPolicy, &equivalent)
	set(&m.NamespaceSelector, &metav1.LabelSelector{})
	set(&m.ObjectSelector, &metav1.LabelSelector{})
	for i := range m.ResourceRules {
		set(&m.ResourceRules[i].Scope, &everywhere)
	}
	return spec
}

// set sets what is not.
func set[T any](field **T, to *T) {
	if *field == nil {
		*field = to
	}
}
