package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/cmd/flags"
	"github.com/mayfly-csi/mayfly/manifests"
	"github.com/mayfly-csi/mayfly/signer/controller/admission"
)

func TestWhoElseMayDecide(t *testing.T) {
	o := admissionOptions{Controller: "jill", NodePlugin: "jack"}
	var out bytes.Buffer
	if err := report(&out, nil, o); err != nil || out.String() != "Nobody but jill decides on what jack asks.\n" {
		t.Errorf("%q (%v)", &out, err)
	}
	out.Reset()
	err := report(&out, []string{"Policy x is missing"}, o)
	const want = "1 of the objects of %s are not in force: " +
		"others than jill may decide on what jack asks, or one of them can do more than it should"
	if err == nil || err.Error() != fmt.Sprintf(want, "manifests/controller/policies.yaml") || out.String() != "Policy x is missing\n" {
		t.Errorf("%q (%v)", &out, err)
	}
	o.PodCertificates = true
	const both = "manifests/controller/policies.yaml and manifests/modes/pod-certificate/policies.yaml"
	if err := report(&out, []string{"Policy x is missing"}, o); err == nil || err.Error() != fmt.Sprintf(want, both) {
		t.Error(err)
	}
}

// The policies speak of the users of the flags, and by default are those of the manifests.
func TestWhomThePoliciesAreAbout(t *testing.T) {
	var o admissionOptions
	_ = o.flags()
	if o.policies() != manifests.Policies() {
		t.Error("the defaults are not the users of the manifests")
	}
	o.Controller, o.NodePlugin, o.PodCertificates = "jill", "jack", true
	o.Annotations.Values = []string{"venafi.cert-manager.io/custom-fields", "example.org/team"}
	text := o.policies()
	const list = "'spiffe.csi.cert-manager.io/identity', 'venafi.cert-manager.io/custom-fields', 'example.org/team']"
	if strings.Count(text, list) != 1 {
		t.Error("the annotations are not those of the flag")
	}
	for user, rest := range map[string]string{"'jill'": "'" + controllerUser + "'", "'jack'": "'" + nodePluginUser + "'"} {
		if !strings.Contains(text, user) || strings.Contains(text, rest) {
			t.Errorf("%s is not in the place of %s", user, rest)
		}
	}
}

// Every policy of the manifests is checked: those of mode pod-certificate where the controller signs.
func TestWhichPoliciesAreChecked(t *testing.T) {
	files := map[bool][]string{false: {"controller/*.yaml"}, true: {"controller/*.yaml", "modes/pod-certificate/*.yaml"}}
	for podCertificates, patterns := range files {
		o := admissionOptions{Controller: controllerUser, NodePlugin: nodePluginUser, PodCertificates: podCertificates}
		o.Annotations = flags.Repeat(annotation)
		checked, err := admission.Parse(o.policies())
		if err != nil {
			t.Fatal(err)
		}
		var got, want []string
		for _, object := range checked {
			got = append(got, object.GetObjectKind().GroupVersionKind().Kind+" "+object.GetName())
		}
		for _, pattern := range patterns {
			want = append(want, policiesOf(t, pattern)...)
		}
		if !slices.Equal(got, want) || len(got) == 0 {
			t.Errorf("with pod certificates %v: %q, and the manifests have %q", podCertificates, got, want)
		}
	}
}

// policiesOf returns the kinds and names of the admission policies, and their bindings, of manifests.
func policiesOf(t *testing.T, pattern string) (all []string) {
	t.Helper()
	root := os.DirFS("../../manifests")
	names, err := fs.Glob(root, pattern)
	if err != nil {
		t.Fatal(err)
	}
	heading := regexp.MustCompile(`(?m)^kind: (ValidatingAdmissionPolicy(?:Binding)?)\nmetadata:\n  name: (.*)$`)
	for _, name := range names {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range heading.FindAllStringSubmatch(string(text), -1) {
			all = append(all, match[1]+" "+match[2])
		}
	}
	return all
}
