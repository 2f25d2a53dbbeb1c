package signer_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/mayfly-csi/mayfly/signer"
)

func TestNamesOfObjects(t *testing.T) {
	for pod, want := range map[string]string{
		"web":                    "web-a1",
		"web-0.":                 "web-0-a1",
		strings.Repeat("p", 253): strings.Repeat("p", 250) + "-a1",
		strings.Repeat("p", 240) + "-" + strings.Repeat("-", 12): strings.Repeat("p", 240) + "-a1",
	} {
		got := signer.Attempt{ID: "a1", Pod: signer.Pod{Name: pod}}.ObjectName()
		if got != want || len(validation.IsDNS1123Subdomain(got)) > 0 {
			t.Errorf("%s: %s, want %s", pod, got, want)
		}
	}
}
