// Package manifests has the manifests that programs read.
package manifests

import _ "embed"

//go:embed controller/policies.yaml
var policies string

//go:embed modes/pod-certificate/policies.yaml
var podCertificates string

// Policies returns the admission policies that the controller relies on, with their bindings, in YAML.
func Policies() string { return policies }

// PodCertificatePolicies returns those on which it relies besides in mode pod-certificate.
func PodCertificatePolicies() string { return podCertificates }
