// Package manifests has the manifests that programs read.
package manifests

import _ "embed"

//go:embed controller/policies.yaml
var policies string

// Policies returns the admission policies that the controller relies on, with their bindings, in YAML.
func Policies() string { return policies }
