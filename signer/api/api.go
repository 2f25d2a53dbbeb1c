// Package api makes clients and informers for the few kinds of objects that the node plugin watches.
//
// client-go's clientset registers every kind of Kubernetes, and k8s.io/api/core/v1 has every field of its kinds: both
// take memory that the kinds here, which have only the fields that are read, do not. Copies of an object share its
// content: what was read is never changed.
package api

import (
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/object"
)

// Core makes a client for Events, pods and ConfigMaps.
func Core(config *rest.Config) (rest.Interface, error) {
	return object.Connect(config, core(), map[string]runtime.Object{
		"Pod": &Pod{}, "PodList": &List[Pod]{}, "ConfigMap": &ConfigMap{}, "ConfigMapList": &List[ConfigMap]{},
	})
}

// Certificates makes a client for ClusterTrustBundles.
func Certificates(config *rest.Config) (rest.Interface, error) {
	return object.Connect(config, certificates(), map[string]runtime.Object{
		"ClusterTrustBundle": &ClusterTrustBundle{}, "ClusterTrustBundleList": &List[ClusterTrustBundle]{},
	})
}

// One makes a list and watch of one object by its name: the API server sends it only that object's events
// (k8s.io/apiserver pkg/storage/cacher/cacher.go, watches by namespace and name).
func One(client rest.Interface, resource, namespace, name string) *cache.ListWatch {
	byName := fields.OneTermEqualSelector(metav1.ObjectNameField, name)
	return cache.NewListWatchFromClient(client, resource, namespace, byName)
}

// A Handler handles an informer's events, one call at a time.
type Handler struct {
	Set   func(object any) // The object was added or changed.
	Unset func(object any) // The object was deleted.
	Fail  func(err error)  // A list or watch failed; the informer tries again.
}

// Listed makes client-go list before it watches. By default it begins with a watch that streams the list, and takes
// the end of such a connection for an empty watch (rest/request.go, Watch): behind a load balancer that accepts
// connections while the API server is down, no error would be reported.
type Listed struct{ *cache.ListWatch }

// IsWatchListSemanticsUnSupported makes client-go begin with a list (k8s.io/client-go util/watchlist).
func (Listed) IsWatchListSemanticsUnSupported() bool { return true }

// Inform makes an informer that calls the handler. Run it once.
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
	failed := func(_ *cache.Reflector, err error) { h.Fail(statusError(err)) }
	return informer, errors.Join(err, informer.SetWatchErrorHandler(failed))
}

// statusError returns the API server's answer if err has one, else err without what differs between tries.
func statusError(err error) error {
	var answer *apierrors.StatusError
	if errors.As(err, &answer) {
		return answer
	}
	return message.Stable(err)
}
