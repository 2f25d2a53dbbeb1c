package trust

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/mayfly-csi/mayfly/driver/api"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

var errNoAPI = errors.New("this driver knows no API server: its operator sets --kubeconfig, or another --signer")

// A cluster is what an API server has of sources.
type cluster struct {
	bundles, configMaps rest.Interface
}

func newCluster(config *rest.Config) (*cluster, error) {
	configMaps, err1 := api.Core(config)
	bundles, err2 := api.Certificates(config)
	return &cluster{bundles: bundles, configMaps: configMaps}, errors.Join(err1, err2)
}

// watch tells what a source in the cluster has, until ctx ends. What is watched by its name costs the API server nothing but that object's events
// (k8s.io/apiserver pkg/storage/cacher/cacher.go); a signer's bundles are found among the events of all bundles.
func (c *cluster) watch(ctx context.Context, source volume.Source, tell func(Answer)) {
	s := &shelf{source: source, tell: tell}
	l := &lister{api: c.bundles, resource: "clustertrustbundles", list: &certificatesv1.ClusterTrustBundleList{}, refused: s.refused}
	var kind runtime.Object = &certificatesv1.ClusterTrustBundle{}
	l.fields = fields.OneTermEqualSelector(metav1.ObjectNameField, source.Name).String()
	switch {
	case source.Kind == volume.ConfigMapSource:
		l.api, l.resource, l.namespace, l.list, kind = c.configMaps, "configmaps", source.Namespace, &corev1.ConfigMapList{}, &corev1.ConfigMap{}
	case source.Signer != "":
		l.fields = fields.OneTermEqualSelector("spec.signerName", source.Signer).String()
		l.labels = strings.ReplaceAll(source.Labels, "&", ",")
	}
	lw := api.Listed{ListWatch: &cache.ListWatch{ListWithContextFunc: l.List, WatchFuncWithContext: l.Watch}}
	cache.NewReflectorWithOptions(lw, kind, s, cache.ReflectorOptions{Name: source.String()}).RunWithContext(ctx)
}

// A lister lists and watches the objects of one source.
type lister struct {
	api            rest.Interface
	namespace      string
	resource       string
	fields, labels string
	list           runtime.Object // An empty one of its kind.
	refused        func(error)    // Hears of each list that failed.
}

func (l *lister) request(o *metav1.ListOptions) *rest.Request {
	o.FieldSelector, o.LabelSelector = l.fields, l.labels
	return l.api.Get().NamespaceIfScoped(l.namespace, l.namespace != "").Resource(l.resource).VersionedParams(o, metav1.ParameterCodec)
}

// List lists them.
func (l *lister) List(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	list := l.list.DeepCopyObject()
	err := l.request(&o).Do(ctx).Into(list)
	if err != nil && ctx.Err() == nil {
		l.refused(err)
	}
	return list, err
}

// Watch watches them. Its errors lead to a list or to another watch.
func (l *lister) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	return l.request(&o).Watch(ctx)
}

// A shelf has what the objects of one source say, and tells it. The reflector of the source fills it; it implements [cache.ReflectorStore].
type shelf struct {
	source volume.Source
	tell   func(Answer)
	told   bool
	found  map[string]Answer // By the names of the objects.
}

// Replace implements [cache.ReflectorStore].
func (s *shelf) Replace(objects []any, _ string) error {
	s.found = map[string]Answer{}
	for _, o := range objects {
		s.put(o)
	}
	s.say()
	return nil
}

// Add implements [cache.ReflectorStore].
func (s *shelf) Add(object any) error {
	s.put(object)
	s.say()
	return nil
}

// Update implements [cache.ReflectorStore].
func (s *shelf) Update(object any) error { return s.Add(object) }

// Delete implements [cache.ReflectorStore].
func (s *shelf) Delete(object any) error {
	if o, ok := object.(metav1.Object); ok {
		delete(s.found, o.GetName())
	}
	s.say()
	return nil
}

// Resync implements [cache.ReflectorStore].
func (s *shelf) Resync() error { return nil }

func (s *shelf) put(object any) {
	switch o := object.(type) {
	case *corev1.ConfigMap:
		s.found[o.Name] = s.value(o)
	case *certificatesv1.ClusterTrustBundle:
		s.found[o.Name] = answer([]byte(o.Spec.TrustBundle), "ClusterTrustBundle "+o.Name)
	}
}

// value is what a ConfigMap has under the key.
func (s *shelf) value(o *corev1.ConfigMap) Answer {
	what := fmt.Sprintf("ConfigMap %s/%s", o.Namespace, o.Name)
	if text, ok := o.Data[s.source.Key]; ok {
		return answer([]byte(text), what+", key "+s.source.Key)
	}
	if text, ok := o.BinaryData[s.source.Key]; ok {
		return answer(text, what+", key "+s.source.Key)
	}
	there := slices.Sorted(maps.Keys(o.Data))
	if len(there) == 0 {
		return Answer{Err: fmt.Errorf("%s has no key %s, and no other", what, s.source.Key)}
	}
	const some = 5
	if more := len(there) - some; more > 0 {
		there = append(there[:some], fmt.Sprintf("%d more", more))
	}
	return Answer{Err: fmt.Errorf("%s has no key %s; it has %s", what, s.source.Key, strings.Join(there, ", "))}
}

// answer reads a text.
func answer(text []byte, what string) Answer {
	certificates, err := chain.Parse(text)
	if err != nil {
		return Answer{Err: fmt.Errorf("%s: %w", what, err)}
	}
	return Answer{Certificates: chain.Unite(certificates)}
}

// say tells what all objects say together, in the order of their names.
func (s *shelf) say() {
	s.told = true
	var lists []chain.Bundle
	for _, name := range slices.Sorted(maps.Keys(s.found)) {
		if a := s.found[name]; a.Err != nil {
			s.tell(a)
			return
		}
		lists = append(lists, s.found[name].Certificates)
	}
	if len(lists) == 0 {
		s.tell(Answer{Err: s.absent()})
		return
	}
	s.tell(Answer{Certificates: chain.Unite(lists...)})
}

func (s *shelf) absent() error {
	switch {
	case s.source.Kind == volume.ConfigMapSource:
		return fmt.Errorf("ConfigMap %s/%s not found", s.source.Namespace, s.source.Name)
	case s.source.Labels != "":
		return fmt.Errorf("no ClusterTrustBundle of signer %s has the labels %s", s.source.Signer, s.source.Labels)
	case s.source.Signer != "":
		return fmt.Errorf("no ClusterTrustBundle is of signer %s", s.source.Signer)
	}
	return fmt.Errorf("ClusterTrustBundle %s not found", s.source.Name)
}

// refused hears that the source can't be read. After a first answer, an API server that is away is none: what it said stands.
func (s *shelf) refused(err error) {
	explained := s.explain(err)
	if !s.told || !errors.Is(explained, ErrNoAnswer) {
		s.tell(Answer{Err: explained})
	}
}

// ErrNoAnswer is that of a source of which nothing is known, for its API server is away. It is no trouble for who has its certificates.
var ErrNoAnswer = errors.New("the API server did not answer")

func (s *shelf) explain(err error) error {
	var unanswered *url.Error
	switch {
	case apierrors.IsForbidden(err) && s.source.Kind == volume.ConfigMapSource:
		return fmt.Errorf("%w (manifests/options/config-maps.yaml grants it)", err)
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err), apierrors.IsBadRequest(err), apierrors.IsInvalid(err):
		return err
	case apierrors.IsNotFound(err):
		return errors.New("this API server does not serve ClusterTrustBundles of certificates.k8s.io/v1")
	case errors.As(err, &unanswered): // Without its URL.
		return fmt.Errorf("%w: %w", ErrNoAnswer, unanswered.Err)
	}
	return fmt.Errorf("%w: %w", ErrNoAnswer, err)
}
