// Package v1alpha1 is the CertificatePolicy as the API server keeps it.
//
// The comments of the fields are what `kubectl explain` says. The CRD of manifests/controller is generated from them, by make generate.
//
// +kubebuilder:object:generate=true
// +groupName=csi.mayfly.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A CertificatePolicy says which certificates the pods that it selects may have. Policies are alternatives: where some
// select a pod, one of them must allow all that its volume asks for. A pod that none selects may have the names that
// follow from its own identity, or what a policy with `default: true` allows.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=certificatepolicies,shortName=certpolicy,categories=mayfly
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Understood",type=string,JSONPath=`.status.conditions[?(@.type=="Understood")].status`,description="True: the policy is in force. False: it has a mistake, and allows nothing."
// +kubebuilder:printcolumn:name="Accounts",type=integer,JSONPath=`.status.serviceAccounts`,description="How many service accounts of the cluster the policy selects."
// +kubebuilder:printcolumn:name="Avoidable",type=string,JSONPath=`.status.conditions[?(@.type=="Avoidable")].status`,description="True: a pod leaves the policy by naming another service account."
// +kubebuilder:printcolumn:name="Default",type=boolean,JSONPath=`.spec.default`,description="True: the policy is for pods that no other policy selects."
// +kubebuilder:printcolumn:name="Namespaces",type=string,JSONPath=`.spec.namespaces`
// +kubebuilder:printcolumn:name="DNS names",type=string,JSONPath=`.spec.allow.dnsNames`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type CertificatePolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Which pods the policy selects, and what those may have.
	// +required
	Spec Spec `json:"spec"`

	// What mayfly-controller says of the policy. No decision goes by it.
	// +optional
	Status Status `json:"status,omitempty,omitzero"`
}

// CertificatePolicyList is several of them.
//
// +kubebuilder:object:root=true
type CertificatePolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []CertificatePolicy `json:"items"`
}

// Spec is which pods a policy selects, and what those may have.
type Spec struct {
	// Namespaces of the pods. `*` stands for any characters.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=512
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9*]([a-z0-9*-]*[a-z0-9*])?$`
	Namespaces []string `json:"namespaces"`

	// Service accounts of the pods. `*` stands for any characters. Where it is absent: all.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=512
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9*]([a-z0-9.*-]*[a-z0-9*])?$`
	ServiceAccounts []string `json:"serviceAccounts,omitempty"`

	// Makes the policy one for pods that no other policy selects. `namespaces` and `serviceAccounts` say for which of
	// those.
	// +optional
	// +default=false
	Default bool `json:"default,omitempty"`

	// What a certificate may say. What is not here is not allowed.
	// +optional
	Allow Allow `json:"allow,omitempty,omitzero"`

	// What a certificate must keep to. Issuers and keys that are not here have no limit, lifetimes and usages those of a pod
	// that no policy selects.
	// +optional
	Limits Limits `json:"limits,omitempty,omitzero"`

	// CEL expressions that must all be true. They know `volume` and `pod`. One that fails, or costs too much, denies.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	Expressions []Expression `json:"expressions,omitempty"`
}

// Allow is what a certificate may say.
type Allow struct {
	// The names that follow from the pod's own identity: those of services of its namespace that end in `.svc` or in the
	// cluster's domain, its SPIFFE ID, and IPs that were proved to be its own.
	// +optional
	// +default=true
	OwnNames *bool `json:"ownNames,omitempty"`

	// DNS names. A leading `*.` stands for one label, a leading `**.` for one or more, and `**` alone for any name.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=512
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:Pattern=`^(\*\*|(\*\*?\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*)$`
	DNSNames []string `json:"dnsNames,omitempty"`

	// Wildcard names, such as `*.example.org`, where `dnsNames`, `commonNames` or `ownNames` allow them. Without it the
	// policy allows no name with a `*`.
	// +optional
	// +default=false
	Wildcards bool `json:"wildcards,omitempty"`

	// Common names, besides those that are allowed as DNS names. `*` stands for any characters.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=512
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=64
	CommonNames []string `json:"commonNames,omitempty"`

	// Organizations of the subject, which are groups to an API server. `*` stands for any characters.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=512
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=64
	Organizations []string `json:"organizations,omitempty"`

	// Ranges of IP addresses, as CIDRs. They also say where the IPs of pods may lie whose volumes have `${POD_IP}`.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=512
	IPs []CIDR `json:"ips,omitempty"`

	// URIs, SPIFFE IDs among them. `*` stands for one or more letters, digits, `-`, `.`, `_` and `~`, and so never goes beyond a part of a path.
	// In the host it may only stand alone, or come before a dot.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=512
	URIs []URI `json:"uris,omitempty"`

	// Keys of annotations that volumes may give to their request, and that issuers may act upon. `*` stands for any
	// characters. Those of profiles are allowed in any case.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=317
	Annotations []string `json:"annotations,omitempty"`

	// A CA's certificate, and a CA's key usages.
	// +optional
	// +default=false
	IsCA bool `json:"isCA,omitempty"`
}

// CIDR is a range of IP addresses.
//
// +kubebuilder:validation:MaxLength=43
// +kubebuilder:validation:XValidation:rule="isCIDR(self) && cidr(self) == cidr(self).masked()",message="must be the CIDR of a range, such as 10.0.0.0/8 or fd00::/8"
type CIDR string

// URI is a pattern of URIs.
//
// +kubebuilder:validation:MaxLength=2048
// +kubebuilder:validation:Pattern=`^[a-z][a-z0-9+.-]*:[!-~]+$`
// +kubebuilder:validation:XValidation:rule="!self.contains('://') || self.matches('^[^:]+://([^*/?#]*|[*]([.][^*/?#]+)?)([/?#]|$)')",message="a * in the host must stand for all of it, or for what comes before a dot"
type URI string

// Limits are what a certificate must keep to.
type Limits struct {
	// Key usages and extended key usages; a volume must not have another. Where they are absent, the dialect's: digital
	// signature, key encipherment, key agreement, server auth and client auth; for csi-driver's volumes signing and data
	// encipherment, too.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Usages []Usage `json:"usages,omitempty"`

	// The shortest lifetime that may be asked for, such as `1m`. Where it is absent: 5m, and 10s for volumes of
	// csi-driver and csi-driver-spiffe.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="must be longer than 0s"
	MinDuration *metav1.Duration `json:"minDuration,omitempty"`

	// The longest lifetime that may be asked for, such as `24h`. Where it is absent: 24h, and 2160h for csi-driver's volumes.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="must be longer than 0s"
	MaxDuration *metav1.Duration `json:"maxDuration,omitempty"`

	// Issuers, of which it must be one.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	Issuers []Issuer `json:"issuers,omitempty"`

	// Kinds of keys, of which it must be one.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Keys []Key `json:"keys,omitempty"`
}

// Usage is a key usage or an extended key usage, by cert-manager's name.
//
// +kubebuilder:validation:Enum="signing";"digital signature";"content commitment";"key encipherment";"data encipherment";"key agreement";"cert sign";"crl sign";"encipher only";"decipher only";"any";"server auth";"client auth";"code signing";"email protection";"s/mime";"ipsec end system";"ipsec tunnel";"ipsec user";"timestamping";"ocsp signing";"microsoft sgc";"netscape sgc"
type Usage string

// An Issuer is one, or several.
type Issuer struct {
	// Its name. `*` stands for any characters.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Its kind. `*` stands for any characters.
	// +optional
	// +default="Issuer"
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind,omitempty"`

	// Its API group. `*` stands for any characters.
	// +optional
	// +default="cert-manager.io"
	// +kubebuilder:validation:MaxLength=253
	Group string `json:"group,omitempty"`
}

// A Key is a kind of keys.
//
// +kubebuilder:validation:XValidation:rule="self.algorithm != 'Ed25519' || !has(self.minSize)",message="keys of Ed25519 have one size"
type Key struct {
	// RSA, ECDSA or Ed25519.
	// +required
	// +kubebuilder:validation:Enum=RSA;ECDSA;Ed25519
	Algorithm string `json:"algorithm"`

	// Its least size in bits.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=16384
	MinSize int32 `json:"minSize,omitempty"`
}

// An Expression must be true.
type Expression struct {
	// The CEL expression.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Expression string `json:"expression"`

	// For the pod's author, if it is not true.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`
}

// Status is what mayfly-controller says of a policy.
type Status struct {
	// The generation of the policy that the status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// How many service accounts of the cluster the policy selects. Pods name them.
	// +optional
	ServiceAccounts *int32 `json:"serviceAccounts,omitempty"`

	// In how many namespaces those are.
	// +optional
	Namespaces *int32 `json:"namespaces,omitempty"`

	// Understood: the policy has no mistake, and is in force. Selecting: there are service accounts that it selects.
	// Avoidable: a pod leaves it by naming another service account.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// The types of the conditions.
const (
	Understood = "Understood"
	Selecting  = "Selecting"
	Avoidable  = "Avoidable"
)

// GroupVersion returns that of the kind.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: "csi.mayfly.dev", Version: "v1alpha1"}
}

// Kind is the kind's name.
const Kind = "CertificatePolicy"

// AddToScheme makes the kind known.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion(), &CertificatePolicy{}, &CertificatePolicyList{})
	metav1.AddToGroupVersion(s, GroupVersion())
	return nil
}
