package object

import (
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
)

// A Client reads and writes objects of one resource, as T. Its methods return copies that differ in one respect. The
// API server's refusals are errors of k8s.io/apimachinery/pkg/api/errors.
type Client[T any] struct {
	api       rest.Interface
	resource  string
	namespace string
	selector  string
	token     string
	accept    string
}

// New makes a client for a resource of the API version of a connection: see [Connect].
func New[T any](api rest.Interface, resource string) Client[T] {
	return Client[T]{api: api, resource: resource}
}

// In returns a client for the objects in a namespace.
func (c Client[T]) In(namespace string) Client[T] {
	c.namespace = namespace
	return c
}

// Where returns a client that lists and watches only objects with a value in a field.
func (c Client[T]) Where(field, value string) Client[T] {
	c.selector = "," + fields.OneTermEqualSelector(field, value).String()
	return c
}

// As returns a client whose requests bring a token. Its connection should be anonymous: see [Anonymous].
func (c Client[T]) As(token string) Client[T] {
	c.token = token
	return c
}

// MetaOnly returns a client that reads the metadata of objects alone.
func (c Client[T]) MetaOnly() Client[T] {
	c.accept = runtime.ContentTypeJSON + ";as=PartialObjectMetadata;g=" + metav1.GroupName + ";v=v1"
	return c
}

// Create creates an object, and returns it as it is then.
func (c Client[T]) Create(ctx context.Context, wanted *T) (*T, error) {
	text, err := json.Marshal(wanted)
	if err != nil {
		return nil, fmt.Errorf("encode an object of %s: %w", c.resource, err)
	}
	request := c.request("POST").SetHeader("Content-Type", runtime.ContentTypeJSON).Body(text)
	return decode[T](request.Do(ctx))
}

// Get reads an object. Version "0" reads it from the API server's cache, an empty one from etcd.
func (c Client[T]) Get(ctx context.Context, name, version string) (*T, error) {
	return decode[T](versioned(c.request("GET").Name(name), version).Do(ctx))
}

// Find lists the object of a name: it is authorized as a list. The version is that of Get. There may be none.
func (c Client[T]) Find(ctx context.Context, name, version string) ([]T, error) {
	type list struct{ Items []T }
	found, err := decode[list](versioned(c.named(name), version).Do(ctx))
	if err != nil {
		return nil, err
	}
	return found.Items, nil
}

// Delete deletes an object.
func (c Client[T]) Delete(ctx context.Context, name string) error {
	return c.request("DELETE").Name(name).Do(ctx).Error()
}

// request begins a request.
func (c Client[T]) request(verb string) *rest.Request {
	r := c.api.Verb(verb).NamespaceIfScoped(c.namespace, c.namespace != "").Resource(c.resource)
	if c.token != "" {
		r.SetHeader("Authorization", "Bearer "+c.token)
	}
	if c.accept != "" {
		r.SetHeader("Accept", c.accept)
	}
	return r
}

// named begins a request for the list with the object of a name.
func (c Client[T]) named(name string) *rest.Request {
	byName := fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	return c.request("GET").Param("fieldSelector", byName+c.selector)
}

// versioned adds a version to a request, if it is not empty.
func versioned(r *rest.Request, version string) *rest.Request {
	if version == "" {
		return r
	}
	return r.Param("resourceVersion", version)
}

// decode decodes the answer to a request.
func decode[T any](answer rest.Result) (*T, error) {
	if err := answer.Error(); err != nil {
		return nil, err
	}
	text, err := answer.Raw()
	if err != nil {
		return nil, err
	}
	into := new(T)
	if err := json.Unmarshal(text, into); err != nil {
		return nil, fmt.Errorf("decode the API server's answer: %w", err)
	}
	return into, nil
}
