// Package api reads and writes the few kinds of Kubernetes that the node plugin needs.
//
// client-go's clientset knows every kind of Kubernetes, which the process would hold in memory.
package api

import (
	"errors"
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// Core is a client for Events, pods and ConfigMaps.
func Core(config *rest.Config) (rest.Interface, error) {
	return client(config, "/api", corev1.SchemeGroupVersion,
		&corev1.Event{}, &corev1.Pod{}, &corev1.PodList{}, &corev1.ConfigMap{}, &corev1.ConfigMapList{})
}

// Certificates is a client for ClusterTrustBundles.
func Certificates(config *rest.Config) (rest.Interface, error) {
	return client(config, "/apis", certificatesv1.SchemeGroupVersion, &certificatesv1.ClusterTrustBundle{}, &certificatesv1.ClusterTrustBundleList{})
}

// client knows a few kinds. It sets no limit of its own to the requests: the node plugin bounds them.
func client(config *rest.Config, path string, version schema.GroupVersion, kinds ...runtime.Object) (rest.Interface, error) {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(version, kinds...)
	metav1.AddToGroupVersion(scheme, version)
	config = rest.CopyConfig(config)
	config.QPS = -1 // k8s.io/client-go rest/config.go: a negative rate is no limit.
	config.APIPath, config.GroupVersion = path, &version
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for %s: %w", version, err)
	}
	return c, nil
}

// One is a list and watch of one object by its name: the API server dispatches nothing to it but that object's events
// (k8s.io/apiserver pkg/storage/cacher/cacher.go, watches by namespace and name).
func One(client rest.Interface, resource, namespace, name string) *cache.ListWatch {
	return cache.NewListWatchFromClient(client, resource, namespace, fields.OneTermEqualSelector(metav1.ObjectNameField, name))
}

// A Handler is told of what an informer sees, one call at a time.
type Handler struct {
	Set   func(object any) // It is there, or has changed.
	Unset func(object any) // It is gone.
	Fail  func(err error)  // It could not be read, or watched; the informer tries again.
}

// Listed is read by a list before it is watched. client-go would begin with a watch that streams the list, and takes the
// end of such a connection for an empty watch (rest/request.go, Watch): behind a balancer that accepts while the API
// server is away, nobody would hear of it.
type Listed struct{ *cache.ListWatch }

// IsWatchListSemanticsUnSupported has client-go begin with a list (k8s.io/client-go util/watchlist).
func (Listed) IsWatchListSemanticsUnSupported() bool { return true }

// Inform is an informer that tells the handler. Run it once.
func Inform(source *cache.ListWatch, kind runtime.Object, h Handler) (cache.SharedInformer, error) {
	informer := cache.NewSharedInformer(Listed{source}, kind, 0)
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    h.Set,
		UpdateFunc: func(_, object any) { h.Set(object) },
		DeleteFunc: func(object any) {
			if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = last.Obj
			}
			h.Unset(object)
		},
	})
	return informer, errors.Join(err, informer.SetWatchErrorHandler(func(_ *cache.Reflector, err error) { h.Fail(plain(err)) }))
}

// plain is the API server's own answer, where there is one.
func plain(err error) error {
	var answer *apierrors.StatusError
	if errors.As(err, &answer) {
		return answer
	}
	return err
}
