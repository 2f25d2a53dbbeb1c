// Package object reads, writes and watches objects of the API server as small structs, which have only the fields that
// are needed: most of an object's text are fields that nobody here reads. client-go makes the requests.
package object

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// Meta is the part of an object's metadata that is needed (metav1.ObjectMeta). Embed it with the tag json:"metadata".
type Meta struct {
	Name            string                  `json:"name,omitempty"`
	Namespace       string                  `json:"namespace,omitempty"`
	UID             string                  `json:"uid,omitempty"`
	ResourceVersion string                  `json:"resourceVersion,omitempty"`
	Annotations     map[string]string       `json:"annotations,omitempty"`
	OwnerReferences []metav1.OwnerReference `json:"ownerReferences,omitempty"`
}

// GetName returns the object's name.
func (m *Meta) GetName() string { return m.Name }

// GetNamespace returns the object's namespace.
func (m *Meta) GetNamespace() string { return m.Namespace }

// GetUID returns the object's UID.
func (m *Meta) GetUID() string { return m.UID }

// GetResourceVersion returns the version of the object's state.
func (m *Meta) GetResourceVersion() string { return m.ResourceVersion }

// A Condition is one of an object's (metav1.Condition).
type Condition struct {
	Type    string                 `json:"type"`
	Status  metav1.ConditionStatus `json:"status"`
	Reason  string                 `json:"reason,omitempty"`
	Message string                 `json:"message,omitempty"`
}

// Is reports whether the condition is of a type, and true.
func (c Condition) Is(of string) bool { return c.Type == of && c.Status == metav1.ConditionTrue }

// Connect makes a connection to the API server of config for an API version, without a rate limit: the node plugin
// limits its requests itself. Besides errors it decodes the given kinds, by their names; nil: none.
func Connect(
	config *rest.Config, version schema.GroupVersion, kinds map[string]runtime.Object,
) (rest.Interface, error) {
	scheme := runtime.NewScheme() // client-go's clientset registers every kind of Kubernetes, which takes memory.
	for name, kind := range kinds {
		scheme.AddKnownTypeWithName(version.WithKind(name), kind)
	}
	metav1.AddToGroupVersion(scheme, version)
	config = rest.CopyConfig(config)
	config.QPS = -1 // k8s.io/client-go rest/config.go: a negative rate is no limit.
	config.APIPath, config.GroupVersion = "/apis", &version
	if version.Group == "" {
		config.APIPath = "/api"
	}
	config.AcceptContentTypes, config.ContentType = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	api, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for %s: %w", version, err)
	}
	return api, nil
}

// Anonymous returns config without credentials, for requests that bring their own: see [Client.As].
func Anonymous(config *rest.Config) *rest.Config {
	anonymous := rest.AnonymousClientConfig(config)
	anonymous.Transport = config.Transport // It has no credentials: those are in the config.
	return anonymous
}
