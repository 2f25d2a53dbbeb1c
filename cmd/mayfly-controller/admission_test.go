package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/manifests"
)

func TestWhoElseMayDecide(t *testing.T) {
	o := admissionOptions{Controller: "jill", NodePlugin: "jack"}
	var out bytes.Buffer
	if err := report(&out, nil, o); err != nil || out.String() != "Nobody but jill decides on what jack asks.\n" {
		t.Errorf("%q (%v)", &out, err)
	}
	out.Reset()
	err := report(&out, []string{"Policy x is missing"}, o)
	const want = "1 of the objects of manifests/controller/policies.yaml are not in force: " +
		"others than jill may decide on what jack asks"
	if err == nil || err.Error() != want || out.String() != "Policy x is missing\n" {
		t.Errorf("%q (%v)", &out, err)
	}
}

// The policies speak of the users of the flags, and by default are those of the manifests.
func TestWhomThePoliciesAreAbout(t *testing.T) {
	var o admissionOptions
	_ = o.flags()
	if o.policies() != manifests.Policies() {
		t.Error("the defaults are not the users of the manifests")
	}
	o.Controller, o.NodePlugin = "jill", "jack"
	text := o.policies()
	for user, rest := range map[string]string{"'jill'": "'" + controllerUser + "'", "'jack'": "'" + nodePluginUser + "'"} {
		if !strings.Contains(text, user) || strings.Contains(text, rest) {
			t.Errorf("%s is not in the place of %s", user, rest)
		}
	}
}
